"""What MLflow runs to load a registered model: it keeps this file as the model's code, and no pickled object."""

from mlflow.models import set_model

from jobs._serving.predictor import Predictor

set_model(Predictor())
