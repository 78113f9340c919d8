"""Models, losses and methods of e4t: plain PyTorch that knows neither Ray nor MLflow."""
