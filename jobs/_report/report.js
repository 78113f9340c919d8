"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("page-data").textContent);
  const ABSENT = 65535, UNSCORED = 65534, TOP = 65533, MINUS = "\u2212";
  const P = data.prompts.length, S = data.scores.length;
  const codes = data.methods.map((m) => new Uint16Array(Uint8Array.from(atob(m.codes), (c) => c.charCodeAt(0)).buffer));
  const all = (n) => Array.from({ length: n }, (_, i) => i);
  const prompts = all(P), methods = all(codes.length);
  const first = { who: "", only: "", method: "", prompt: "", score: String(data.ranked), order: "ends", size: "12", page: 1 };
  const form = $("find"), pages = $("pages"), people = $("people"), one = $("one"), tip = $("tip"), intro = $("shown").textContent;
  const untouched = [...people.childNodes];
  let state = { ...first }, typing = 0;

  // --- scores

  const code = (m, i, p, s) => codes[m][(i * P + p) * S + s];
  const drawn = (m, i, p) => code(m, i, p, 0) !== ABSENT;
  function score(m, i, p, s) {
    const { low, high } = data.scores[s], at = code(m, i, p, s);
    return at >= UNSCORED ? null : low + (at / TOP) * (high - low);
  }
  function mean(m, i, chosen, s) {
    const known = chosen.map((p) => score(m, i, p, s)).filter((v) => v !== null);
    return known.length ? known.reduce((a, b) => a + b) / known.length : null;
  }
  const text = (value, digits = 2) => (value === null ? "\u2013" : value.toFixed(digits).replace("-", MINUS));
  const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const chosenMethods = () => (state.method === "" ? methods : [Number(state.method)]);
  const chosenPrompts = () => (state.prompt === "" ? prompts : [Number(state.prompt)]);

  /** [identity, rank] in the order asked for, those without a score last. */
  function ranked() {
    const ps = chosenPrompts(), ms = chosenMethods(), s = Number(state.score), up = data.scores[s].up ? 1 : -1;
    const there = all(data.identities.length).filter((i) => ms.some((m) => ps.some((p) => drawn(m, i, p))));
    const keys = new Map(there.map((i) => [i, mean(ms[0], i, ps, s)]));
    const scored = there.filter((i) => keys.get(i) !== null).sort((a, b) => up * (keys.get(b) - keys.get(a)) || a - b);
    const ranks = new Map(scored.map((i, at) => [i, at + 1]));
    const order = state.order === "worst" ? scored.slice().reverse() : scored;
    const who = state.who.trim().toLowerCase();
    const fits = (i) => (state.only ? data.identities[i] === state.only : data.identities[i].toLowerCase().includes(who));
    return [...order, ...there.filter((i) => keys.get(i) === null)].filter(fits).map((i) => [i, ranks.get(i), scored.length]);
  }

  // --- pictures

  const el = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children.filter((c) => c !== null));
    return node;
  };
  const blobs = new Map();
  let inside = null;
  /** URL of an identity's contact: a file beside the page, or a part of it. */
  function contact(i) {
    const name = data.contacts[i];
    inside ??= JSON.parse($("page-pictures").textContent);
    if (!(name in inside)) return `${data.folder}/${name}.webp`;
    if (!blobs.has(i)) {
      const bytes = Uint8Array.from(atob(inside[name]), (c) => c.charCodeAt(0));
      blobs.set(i, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
    }
    return blobs.get(i);
  }
  function forget(kept) {
    for (const [i, url] of blobs) if (!kept.has(i)) { URL.revokeObjectURL(url); blobs.delete(i); }
  }
  function cut(i, x, y, alt) {
    const image = el("img", { alt, decoding: "async", loading: "lazy" });
    image.onerror = () => image.closest("article, dialog")?.classList.add("lost");
    image.src = contact(i);
    const span = el("span", { className: "cut" }, image);
    for (const [name, value] of Object.entries({ columns: data.columns, rows: data.rows, x, y })) span.style.setProperty(`--${name}`, value);
    return span;
  }
  const photo = (i, x = 0) => cut(i, x, 0, `photo of ${data.identities[i]} that was learned from`);
  const picture = (i, m, p) => cut(i, p, m + 1, `${data.methods[m].label}: ${data.prompts[p].text}`);
  function opening(node, i, m, p) {
    const button = el("button", { type: "button", className: "cell", onclick: () => open(i, m, p) });
    node.replaceWith(button);
    button.append(node);
    return button;
  }
  function figure(node, caption, value = null, series = null) {
    const dot = series === null ? null : el("span", { className: `dot s${series}` });
    return el("figure", {}, node, el("figcaption", {}, dot, caption, value === null ? null : " ", value === null ? null : el("b", {}, value)));
  }
  function drawing(i, m, p, caption, series = null) {
    const shown = figure(picture(i, m, p), caption, text(score(m, i, p, Number(state.score))), series);
    opening(shown.firstChild, i, m, p);
    return shown;
  }

  // --- one page of the gallery

  const heading = (i, rank, of) =>
    el("h3", {}, data.identities[i], " ", el("small", {}, rank ? `no. ${count(rank)} of ${count(of)}` : "not scored"));
  function photos(i) {
    return all(data.photos[i]).map((x) => figure(photo(i, x), x ? "" : "input"));
  }
  function person(i, rank, of) {
    const strips = chosenMethods().filter((m) => prompts.some((p) => drawn(m, i, p))).map((m) => {
      const { label, series, near } = data.methods[m];
      const told = all(S).filter((s) => !data.scores[s].title.includes("held out"))
        .map((s) => el("span", { className: "score" }, `${data.scores[s].title} ${text(mean(m, i, prompts, s))}`));
      return el("div", { className: "method" },
        el("p", { className: "caption" }, el("span", { className: `dot s${series}` }), label, ...told),
        near && near[i] ? el("p", { className: "caption" }, `S* is near: ${near[i]}`) : null,
        el("div", { className: "strip" }, ...prompts.filter((p) => drawn(m, i, p)).map((p) => drawing(i, m, p, data.prompts[p].name))));
    });
    const blocks = el("div", { className: "methods" }, ...strips);
    blocks.style.setProperty("--prompts", P);
    return el("article", { className: "person" }, el("div", { className: "learned" }, ...photos(i)),
      el("div", { className: "drawn" }, heading(i, rank, of), blocks));
  }
  function card(i, rank, of) {
    const p = Number(state.prompt), shown = chosenMethods().filter((m) => drawn(m, i, p));
    return el("article", { className: "card" }, heading(i, rank, of), el("div", { className: "strip drawn" }, ...photos(i).slice(0, 1),
      ...shown.map((m) => drawing(i, m, p, data.methods[m].label, data.methods[m].series))));
  }
  function pictured(i, rank, of) {
    const made = state.prompt === "" ? person(i, rank, of) : card(i, rank, of);
    const text = data.contacts[i] ? `The pictures are in the folder ${data.folder}, which is not beside this page.` : "No pictures were kept of this identity.";
    made.querySelector(".drawn").dataset.lost = text;
    made.classList.toggle("lost", !data.contacts[i]);
    return made;
  }
  function shown(found) {
    const size = Number(state.size), last = Math.max(1, Math.ceil(found.length / size));
    if (state.order === "ends") {
      const best = Math.ceil(data.ends / 2), worst = Math.max(best, found.length - Math.floor(data.ends / 2));
      return { part: [...found.slice(0, best), ...found.slice(worst)], last: 1 };
    }
    state.page = Math.min(Math.max(1, state.page), last);
    return { part: found.slice((state.page - 1) * size, state.page * size), last };
  }
  const pristine = () => Object.keys(first).every((key) => key === "size" || String(state[key]) === String(first[key]));

  function render() {
    const found = ranked(), { part, last } = shown(found);
    people.replaceChildren(...(pristine() ? untouched : part.map((row) => pictured(...row))));
    people.className = state.prompt === "" ? "" : "cards";
    people.style.setProperty("--pictures", 1 + chosenMethods().length);
    forget(new Set(part.map(([i]) => i)));
    for (const field of form.elements) if (field.name in state) field.value = field.name === "who" && state.only ? state.only : state[field.name];
    pages.hidden = last < 2;
    pages.querySelector("input").value = state.page;
    pages.querySelector("input").max = last;
    $("of").textContent = `of ${count(last)}`;
    pages.querySelector("[name=back]").disabled = state.page <= 1;
    pages.querySelector("[name=on]").disabled = state.page >= last;
    $("shown").textContent = pristine() ? intro : "";
    $("shown").hidden = !pristine();
    $("found").textContent = told(found, part);
    remember();
  }
  function told(found, part) {
    const by = `${data.scores[Number(state.score)].title} of ${data.methods[chosenMethods()[0]].label}`;
    const on = state.prompt === "" ? "" : ` under \u201c${data.prompts[Number(state.prompt)].name}\u201d`;
    if (!found.length) return `No identity fits${state.who ? ` \u201c${state.who}\u201d` : ""}; Reset shows all.`;
    const start = (state.page - 1) * Number(state.size) + 1, of = `${count(found.length)} ${found.length === 1 ? "identity" : "identities"}`;
    const which = part.length === found.length ? of : state.order === "ends" ? `The best and the worst ${count(part.length)} of ${of}` : `${count(start)}\u2013${count(start + part.length - 1)} of ${of}`;
    return `${which}, by ${by}${on}.`;
  }
  function change(what) {
    state = { ...state, page: 1, ...what };
    render();
  }

  // --- the address remembers, so that a view can be sent to others

  function remember() {
    if (location.protocol === "about:") return; // inside a frame of another page there is no address to change
    const differ = Object.entries(state).filter(([key, value]) => String(value) !== String(first[key]));
    if (differ.length) history.replaceState(null, "", `#gallery&${new URLSearchParams(differ)}`);
    else if (location.hash.startsWith("#gallery&")) history.replaceState(null, "", "#gallery");
  }
  function recall() {
    if (!location.hash.startsWith("#gallery&")) return;
    const asked = Object.fromEntries(new URLSearchParams(location.hash.slice("#gallery&".length)));
    for (const [key, value] of Object.entries(asked)) {
      const field = form.elements.namedItem(key), options = field && field.options;
      const known = options ? [...options].some((o) => o.value === value) : ["who", "only", "page"].includes(key);
      if (known) state[key] = key === "page" ? Number(value) || 1 : value;
    }
    render();
    $("gallery").scrollIntoView();
  }

  // --- one picture

  let at = null;
  function open(i, m, p) {
    at = [i, m, p];
    $("one-name").textContent = data.identities[i];
    one.classList.remove("lost");
    $("one-pictures").replaceChildren(figure(photo(i), "input"), figure(picture(i, m, p), data.prompts[p].text));
    const facts = [["method", data.methods[m].label], ["prompt", data.prompts[p].text],
      ...data.scores.map((column, s) => [column.title, text(score(m, i, p, s), 3)])];
    if (data.methods[m].near?.[i]) facts.push(["S* is near", data.methods[m].near[i]]);
    $("one-facts").replaceChildren(...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
    if (!one.open) one.showModal();
  }
  function turn(step) {
    const [i, m, p] = at;
    const there = methods.flatMap((n) => prompts.filter((q) => drawn(n, i, q)).map((q) => [n, q]));
    const now = there.findIndex(([n, q]) => n === m && q === p);
    open(i, ...there[(now + step + there.length) % there.length]);
  }
  function only(i) {
    state = { ...first, size: state.size };
    change({ only: data.identities[i], order: "best" });
    $("gallery").scrollIntoView();
  }
  one.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") turn(event.key === "ArrowLeft" ? -1 : 1);
  });
  one.addEventListener("click", (event) => {
    if (event.target === one) one.close();
    const name = event.target.name;
    if (name === "back" || name === "on") turn(name === "back" ? -1 : 1);
    if (name === "only") { one.close(); only(at[0]); }
  });

  // --- the plot

  function place(x, y) {
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 6))}px`;
    tip.style.top = `${y + height + 20 > innerHeight ? Math.max(6, y - height - 14) : y + 14}px`;
  }
  function who(i, m) {
    const told = all(S).map((s) => `${data.scores[s].title} ${text(mean(m, i, prompts, s), 3)}`).join("\n");
    const strip = data.contacts[i] ? el("div", { className: "strip" }, photo(i), ...prompts.filter((p) => drawn(m, i, p)).slice(0, 4).map((p) => picture(i, m, p))) : null;
    tip.replaceChildren(el("b", {}, data.identities[i]), `${data.methods[m].label}\n${told}`, ...(strip ? [strip] : []));
  }
  function pointAt(svg) {
    const marks = [...svg.querySelectorAll("g.one, g[tabindex]")].map((g) => {
      const circle = g.querySelector("circle");
      return { g, x: circle.cx.baseVal.value, y: circle.cy.baseVal.value, reach: g.dataset.identity ? 12 : 16 };
    });
    let near = null;
    const leave = () => {
      near?.g.classList.remove("near");
      svg.classList.remove("pointing");
      near = null;
      tip.hidden = true;
    };
    const say = (mark) => {
      const [name, ...rest] = mark.g.getAttribute("aria-label").split("\n");
      tip.replaceChildren(el("b", {}, name), rest.join("\n"));
    };
    svg.addEventListener("pointermove", (event) => {
      const matrix = svg.getScreenCTM(), point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      const away = (mark) => Math.hypot(mark.x - point.x, mark.y - point.y) * matrix.a - mark.reach;
      const nearest = marks.reduce((a, b) => (away(b) < away(a) ? b : a), marks[0]);
      if (!nearest || away(nearest) > 0) return leave();
      if (nearest !== near) {
        leave();
        near = nearest;
        near.g.classList.add("near");
        if (near.g.dataset.identity) who(Number(near.g.dataset.identity), Number(near.g.dataset.method));
        else say(near);
      }
      svg.classList.toggle("pointing", Boolean(near.g.dataset.identity));
      place(event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("click", () => {
      if (near?.g.dataset.identity) { const i = Number(near.g.dataset.identity); leave(); only(i); }
    });
    for (const mark of marks.filter((m) => !m.g.dataset.identity)) {
      mark.g.addEventListener("focus", () => { const box = mark.g.getBoundingClientRect(); say(mark); place(box.right, box.bottom); });
      mark.g.addEventListener("blur", leave);
    }
    svg.addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); });
  }

  // --- light and dark

  const root = document.documentElement, theme = $("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `${theme.textContent} colours`); };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);

  // --- begin

  for (const shown of people.querySelectorAll("figure[data-at]")) opening(shown.firstElementChild, ...shown.dataset.at.split(",").map(Number));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => { event.preventDefault(); state = { ...first }; render(); form.elements.who.focus(); });
  form.elements.who.addEventListener("input", ({ target }) => {
    state = { ...state, page: 1, only: "", who: target.value }; // at once, though drawn when the typing rests
    if (state.who && state.order === "ends") state.order = "best";
    clearTimeout(typing);
    typing = setTimeout(render, 120);
  });
  form.addEventListener("change", ({ target }) => {
    if (target.tagName !== "SELECT") return;
    change({ [target.name]: target.value, ...(target.name === "size" && state.order === "ends" ? { order: "best" } : {}) });
  });
  pages.addEventListener("click", ({ target }) => {
    if (target.tagName !== "BUTTON") return;
    change({ page: state.page + (target.name === "on" ? 1 : -1) });
    form.scrollIntoView({ block: "nearest" });
  });
  pages.querySelector("input").addEventListener("change", ({ target }) => change({ page: Number(target.value) || 1 }));
  addEventListener("hashchange", recall);
  document.querySelectorAll("#tradeoff svg.plot").forEach(pointAt);
  for (const node of document.querySelectorAll(".scripted")) node.hidden = false;
  theme.hidden = false;
  name();
  recall();
})();
