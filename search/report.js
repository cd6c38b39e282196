// The report's figures and controls; the document of search/contents.py is all they know.
"use strict";
const data = JSON.parse(document.getElementById("findings").textContent);
const $ = (id) => document.getElementById(id);
// Okabe and Ito: told apart by every eye; black and yellow are left out, one theme hides each
const OKABE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];
// Viridis, without the end that the theme's paper would hide
const SHADES = {
  light: ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962"],
  dark: ["#31688e", "#26828e", "#1f9e89", "#3dbc74", "#6ece58", "#b5de2b", "#fde725"],
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const SYMBOLS = ["circle", "square", "diamond", "cross", "x", "triangle-up", "star"];
const AROUND = ["top center", "bottom center", "middle right", "middle left"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const WIDE_RANGE = 8; // an axis that spans more than this is logarithmic, as in front.png
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const PICKED = ["f-front", "f-parallel"]; // a point of these chooses its trial
const CONFIG = { responsive: true, displayModeBar: false };
const byId = new Map(data.trials.map((t) => [t.id, t]));
const names = Object.keys(data.metrics);
const objectives = Object.keys(data.objectives);
const complete = data.trials.filter((t) => t.state === "COMPLETE");
const figures = new Map(); // id -> how to draw it, and whether it was: a figure is, once it is near the screen

function el(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

function show(name, value) {
  if (value === undefined || value === null) return "-";
  if (typeof value !== "number") return String(value);
  if (/accuracy|quality_drop|epsilon/.test(name)) return `${(Math.round(1000 * value) / 10 + 0).toFixed(1)} %`; // + 0: no -0.0
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return WHOLE.format(value);
  return String(Number(value.toPrecision(3)));
}

const unit = (name) => (data.metrics[name] && data.metrics[name].unit ? ` ${data.metrics[name].unit}` : "");
const scaled = (name, value) => (value === undefined ? null : data.metrics[name].share ? 100 * value : value);
const label = (name) => name + (data.metrics[name].share ? " (%)" : data.metrics[name].unit ? ` (${data.metrics[name].unit})` : "");

function wide(values) {
  const known = values.filter((v) => v !== null && v !== undefined);
  return known.length > 0 && Math.min(...known) > 0 && Math.max(...known) / Math.min(...known) > WIDE_RANGE;
}

function themed(layout, plain = {}) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line, panel] = ["--ink", "--line", "--panel"].map((v) => style.getPropertyValue(v).trim());
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, ...plain };
  const made = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: "system-ui, sans-serif", size: 12 },
    margin: { l: 50, r: 12, t: 12, b: 42 }, hoverlabel: { bgcolor: panel, bordercolor: line, font: { color: ink }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, hovermode: "closest", dragmode: false, ...layout,
  };
  for (const key of Object.keys(made)) if (/^[xy]axis/.test(key)) made[key] = { ...axis, ...made[key] };
  made.xaxis ??= axis;
  made.yaxis ??= axis;
  return made;
}

const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();

function figure(id, there, make) {
  $(id).classList.toggle("none", !there);
  if (there) figures.set(id, { make, drawn: false });
}

// Plotly's megabytes are no script until the page has been painted: reading them takes seconds,
// and until then a still picture stands where the front will be
function read() {
  if (window.Plotly) return;
  const made = el("script");
  made.textContent = $("plotly").textContent;
  document.head.append(made);
}

function draw(id) {
  const { make } = figures.get(id);
  $(id).querySelector(".still")?.remove();
  const { traces, layout, plain } = make();
  Plotly.react(id, traces, themed(layout, plain), CONFIG);
  if (!figures.get(id).drawn && PICKED.includes(id)) $(id).on("plotly_click", (event) => choose(event.points[0].customdata));
  figures.get(id).drawn = true;
}

function redraw(...ids) {
  ids.filter((id) => figures.get(id)?.drawn).forEach(draw);
}

function hover(t) {
  const numbers = [...new Set([...objectives, "quality_drop", "pattern", "inner_steps"])].filter((n) => t.m[n] !== undefined);
  return [`<b>trial ${t.id}</b>${t.of === undefined ? "" : ` (of ${t.of})`}`, ...numbers.map((n) => `${n} ${show(n, t.m[n])}${unit(n)}`),
    ...Object.entries(t.c).slice(0, 8).map(([n, v]) => `<i>${n} ${show(n, v)}</i>`)].join("<br>");
}

// ------------------------------------------------------------------ selection and front

const bounds = new Map(); // metric -> the number it is held to
function keeps(t) {
  return t.feasible && [...bounds].every(([n, limit]) => t.m[n] !== undefined
    && (data.metrics[n].better === "max" ? t.m[n] >= limit : t.m[n] <= limit));
}

function frontOf(trials) {
  const points = trials.map((t) => objectives.map((n) => (data.objectives[n] === "max" ? -t.m[n] : t.m[n])));
  const beats = (a, b) => a.every((x, i) => x <= b[i]) && a.some((x, i) => x < b[i]);
  return trials.filter((_, i) => !points.some((p) => beats(p, points[i])));
}

const axes = {};
function drawFront() {
  const { x, y, colour } = axes;
  const kept = complete.filter(keeps);
  const best = new Set(frontOf(kept).map((t) => t.id));
  const groups = [
    ["breaks a limit", complete.filter((t) => !t.feasible), { symbol: "x", color: OKABE[1], size: 8 }],
    ["left out by the selection", complete.filter((t) => t.feasible && !keeps(t)), { symbol: "circle-open", color: "#8a8a8a", size: 7 }],
    ["feasible", kept.filter((t) => !best.has(t.id)), { symbol: "circle", size: 8 }],
    ["on the front", kept.filter((t) => best.has(t.id)), { symbol: "diamond", size: 14 }],
  ];
  const shades = kept.map((t) => scaled(colour, t.m[colour])).filter((v) => v !== null);
  const scale = { colorscale: "Viridis", cmin: Math.min(...shades), cmax: Math.max(...shades), line: { width: 1, color: ink() } };
  const traces = groups.filter(([, trials]) => trials.length).map(([name, trials, marker]) => ({
    type: "scatter", mode: name === "on the front" && trials.length <= 12 ? "markers+text" : "markers", name,
    x: trials.map((t) => scaled(x, t.m[x])), y: trials.map((t) => scaled(y, t.m[y])),
    text: trials.map((t) => String(t.id)), textposition: trials.map((_, i) => AROUND[i % AROUND.length]), customdata: trials.map((t) => t.id),
    hovertext: trials.map(hover), hovertemplate: "%{hovertext}<extra></extra>",
    marker: marker.color ? marker : { ...marker, ...scale, color: trials.map((t) => scaled(colour, t.m[colour])),
      showscale: name === "on the front", colorbar: { title: { text: label(colour), side: "right" }, thickness: 12, outlinewidth: 0 } },
  }));
  const log = (name) => (!data.metrics[name].share && wide(complete.map((t) => t.m[name])) ? "log" : "linear");
  return { traces, layout: { xaxis: { title: { text: label(x) }, type: log(x) }, yaxis: { title: { text: label(y) }, type: log(y) } } };
}

function select() {
  const kept = complete.filter(keeps);
  const best = frontOf(kept).sort((a, b) => (data.objectives[objectives[0]] === "max" ? -1 : 1) * (a.m[objectives[0]] - b.m[objectives[0]]));
  const said = `${kept.length} of ${data.head.feasible} feasible trials ${bounds.size ? "keep this" : "without a further limit"}; ${best.length} on their front`;
  $("selection").textContent = `${said}${best.length ? "." : ": loosen a limit."}`;
  const flags = [...bounds].map(([n, limit]) => ` --${data.metrics[n].better === "max" ? "min" : "max"} ${n}=${limit}`).join("");
  $("pick").textContent = `fewtune export ${data.head.run} --pick knee${flags} -o my-student`;
  const columns = [...new Set([...objectives, ...names])].filter((n) => best.some((t) => t.m[n] !== undefined));
  fill("t-front", ["trial", ...columns, "pattern", "steps"], best.map((t) => [
    button(t.id), ...columns.map((n) => show(n, t.m[n])), show("pattern", t.m.pattern), show("inner_steps", t.m.inner_steps)]));
}

function button(id) {
  const made = el("button", String(id), { type: "button", "aria-label": `show trial ${id}` });
  made.onclick = () => { choose(id); $("point").scrollIntoView({ block: "nearest" }); };
  return made;
}

function fill(id, heads, rows, words = []) {
  const head = el("tr");
  heads.forEach((h, i) => head.append(el("th", h, { scope: "col", ...(words.includes(i) ? { class: "words" } : {}) })));
  const body = rows.map((cells) => {
    const row = el("tr");
    cells.forEach((cell, i) => {
      const made = el("td", cell instanceof Node ? null : cell, words.includes(i) ? { class: "words" } : {});
      if (cell instanceof Node) made.append(cell);
      row.append(made);
    });
    return row;
  });
  $(id).replaceChildren(head, ...body);
}

function choose(id) {
  const t = byId.get(id);
  const run = data.head.run;
  const list = (entries) => {
    const made = el("dl");
    entries.forEach(([n, v]) => { const row = el("div"); row.append(el("dt", n), el("dd", show(n, v) + unit(n))); made.append(row); });
    return made;
  };
  const commands = t.state === "COMPLETE" ? `fewtune export ${run} --pick ${id} -o student-${id}\n${t.repeat}` : t.repeat;
  const parts = [el("h3", `Trial ${id}: ${t.state.toLowerCase()}${t.of === undefined ? "" : `, the model of trial ${t.of} adapted differently`}${t.why ? ` (${t.why})` : ""}`),
    list(Object.entries(t.m)), el("p", "Configuration", { class: "note" }), list(Object.entries(t.c)),
    el("p", t.state === "COMPLETE" ? "Take it home; or train it again, from the same seed:" : "Train it again, from the same seed:", { class: "note" })];
  const pre = el("pre");
  pre.append(el("code", commands));
  $("point").replaceChildren(...parts, pre);
  if (data.tables.of[id] && $("table").value !== String(id)) { $("table").value = String(id); redraw("f-accuracy", "f-ms"); }
}

function controls() {
  const pick = (key, text, value) => {
    const made = el("select", null, { id: `axis-${key}` });
    names.forEach((n) => made.append(el("option", n, { value: n })));
    made.value = axes[key] = value;
    made.onchange = () => { axes[key] = made.value; redraw("f-front"); };
    const around = el("label", text);
    around.append(made);
    return around;
  };
  const second = objectives[1] ?? names.find((n) => n !== objectives[0]) ?? objectives[0];
  $("axes").append(pick("y", "up", objectives[0]), pick("x", "right", second), pick("colour", "colour", objectives[2] ?? second));
  const limits = [...new Set([...objectives, ...data.constraints.map((c) => c.split(" ")[0])])].filter((n) => data.metrics[n] && data.metrics[n].better);
  limits.forEach((n) => {
    const made = el("input", null, { type: "number", step: "any", id: `bound-${n}`, inputmode: "decimal" });
    made.oninput = () => {
      if (made.value === "" || Number.isNaN(made.valueAsNumber)) bounds.delete(n); else bounds.set(n, made.valueAsNumber / (data.metrics[n].share ? 100 : 1));
      select();
      redraw("f-front", "f-parallel");
    };
    const around = el("label", `${n} ${data.metrics[n].better === "max" ? "at least" : "at most"}`);
    around.append(made, data.metrics[n].share ? "%" : data.metrics[n].unit);
    $("bounds").append(around);
  });
}

// ------------------------------------------------------------------ parameters

function parallel() {
  const varying = Object.keys(data.space).filter((n) => new Set(complete.map((t) => t.c[n]).filter((v) => v !== undefined)).size > 1);
  const columns = [...varying.map((n) => ({ name: n, of: (t) => t.c[n], ...data.space[n] })),
    ...objectives.filter((n) => data.metrics[n]).map((n) => ({ name: n, of: (t) => t.m[n] }))];
  columns.forEach((c) => {
    const values = complete.map(c.of).filter((v) => v !== undefined);
    c.low ??= c.options ? 0 : Math.min(...values);
    c.high ??= c.options ? c.options.length - 1 : Math.max(...values);
    c.log ??= !c.options && !(data.metrics[c.name] ?? {}).share && wide(values);
    c.at = (t) => {
      const v = c.of(t);
      if (v === undefined) return null;
      const f = c.log ? Math.log : Number;
      const [low, high, x] = c.options ? [c.low, c.high, c.options.indexOf(v)] : [f(c.low), f(c.high), f(v)];
      return high > low ? (x - low) / (high - low) : 0.5;
    };
  });
  $("f-parallel").style.minWidth = `${columns.length * 64}px`;
  const first = objectives[0];
  const kept = complete.filter(keeps);
  const best = new Set(frontOf(kept).map((t) => t.id));
  const values = kept.map((t) => t.m[first]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const bin = (t) => (keeps(t) ? Math.min(6, Math.floor((7 * (t.m[first] - low)) / (high - low || 1))) : -1);
  const traces = [];
  const add = (trials, line, opacity) => {
    if (!trials.length) return;
    const trace = { type: "scatter", mode: "lines", line, opacity, x: [], y: [], hovertext: [], customdata: [], hovertemplate: "%{hovertext}<extra></extra>" };
    trials.forEach((t) => {
      columns.forEach((c, i) => { trace.x.push(i); trace.y.push(c.at(t)); trace.hovertext.push(`trial ${t.id}<br>${c.name} ${show(c.name, c.of(t))}`); trace.customdata.push(t.id); });
      trace.x.push(null); trace.y.push(null); trace.hovertext.push(""); trace.customdata.push(null);
    });
    traces.push(trace);
  };
  const shades = SHADES[dark.matches ? "dark" : "light"];
  add(complete.filter((t) => bin(t) < 0), { color: "#8a8a8a", width: 0.7 }, 0.2);
  shades.forEach((color, b) => add(kept.filter((t) => bin(t) === b && !best.has(t.id)), { color, width: 1 }, 0.4));
  shades.forEach((color, b) => add(kept.filter((t) => bin(t) === b && best.has(t.id)), { color, width: 2.5 }, 1));
  const end = (c, y) => ({ text: show(c.name, c.options ? c.options[y * (c.options.length - 1)] : y ? c.high : c.low), y: y ? 1.03 : -0.03, yanchor: y ? "bottom" : "top" });
  const annotations = columns.flatMap((c, i) => [0, 1].map((y) => ({ x: i, showarrow: false, font: { size: 10 }, ...end(c, y) })));
  return { traces, plain: { zeroline: false }, layout: { annotations, showlegend: false, margin: { l: 30, r: 30, t: 12, b: 90 },
    xaxis: { tickvals: columns.map((_, i) => i), ticktext: columns.map((c) => c.name), tickangle: 35, gridcolor: ink(), range: [-0.4, columns.length - 0.6] },
    yaxis: { visible: false, range: [-0.1, 1.1] } } };
}

function importances() {
  const found = data.importances.of;
  const most = new Map();
  Object.values(found).forEach((of) => Object.entries(of).forEach(([n, v]) => most.set(n, Math.max(most.get(n) ?? 0, v))));
  const params = [...most].sort((a, b) => b[1] - a[1]).slice(0, 12).map(([n]) => n).reverse();
  const traces = Object.entries(found).map(([objective, of], i) => ({
    type: "bar", orientation: "h", name: objective, y: params, x: params.map((n) => 100 * (of[n] ?? 0)),
    marker: { color: OKABE[i % OKABE.length], pattern: { shape: ["", "/", ".", "x"][i % 4], fillmode: "overlay", fgcolor: "#ffffff", fgopacity: 0.6 } }, hovertemplate: `${objective}: %{y} %{x:.0f} %<extra></extra>`,
  }));
  $("f-importances").style.height = `${8 + params.length * (1 + traces.length * 0.45)}rem`;
  return { traces, layout: { barmode: "group", xaxis: { title: { text: "share (%)" } } } };
}

// ------------------------------------------------------------------ patterns and thresholds

function heat(which) {
  const rows = data.tables.of[$("table").value];
  const t = byId.get(Number($("table").value));
  const steps = [...new Set(rows.map((r) => r[1]))].sort((a, b) => a - b);
  const patterns = [...new Set(rows.map((r) => r[0]))].sort();
  const cell = new Map(rows.map((r) => [`${r[0]}/${r[1]}`, r]));
  const value = (p, s) => { const r = cell.get(`${p}/${s}`); return r ? (which === 2 ? 100 * r[2] : r[which]) : null; };
  const z = patterns.map((p) => steps.map((s) => value(p, s)));
  const said = (p, s) => { const r = cell.get(`${p}/${s}`); return r ? `${p}, ${s} steps<br>accuracy ${show("accuracy", r[2])}<br>${show("adapt_ms", r[3])} ms<br>on ${r[4] ?? "all"} tasks` : ""; };
  const few = patterns.length * steps.length <= 60;
  const [px, py] = [steps.indexOf(t.m.inner_steps), patterns.indexOf(t.m.pattern)];
  const shapes = px < 0 || py < 0 ? [] : [{ type: "rect", x0: px - 0.5, x1: px + 0.5, y0: py - 0.5, y1: py + 0.5, line: { color: OKABE[1], width: 3 } }];
  return { traces: [{ type: "heatmap", z, x: steps.map(String), y: patterns.map((p) => `${p} `), colorscale: which === 2 ? "Viridis" : "Cividis", hoverongaps: false,
    hovertext: patterns.map((p) => steps.map((s) => said(p, s))), hovertemplate: "%{hovertext}<extra></extra>", xgap: 2, ygap: 2,
    texttemplate: few ? "%{z:.3g}" : "", colorbar: { title: { text: which === 2 ? "accuracy (%)" : "ms", side: "right" }, thickness: 12, outlinewidth: 0 } }],
    layout: { shapes, xaxis: { title: { text: "inner steps" }, type: "category" }, yaxis: { title: { text: "pattern" }, type: "category" } } };
}

const models = data.thresholds.models ?? [];
const chosenAt = (model, i) => model.choices[model.at[i]];
const loss = (c) => 100 * c.quality_drop;
const saved = (c) => c.adapt_ms_full - c.adapt_ms;

function thresholds() {
  const now = Number($("epsilon").value);
  const traces = models.flatMap((m, i) => {
    const color = OKABE[i % OKABE.length];
    const here = chosenAt(m, now);
    const line = { color, width: 1.5, dash: DASHES[Math.floor(i / OKABE.length) % 4] };
    const path = m.choices.map((c) => c);
    return [{ type: "scatter", mode: "lines+markers", x: path.map(saved), y: path.map(loss), line, marker: { size: 5, color }, hoverinfo: "skip", showlegend: false },
      { type: "scatter", mode: "markers", name: `trial ${m.trial}`, x: [saved(here)], y: [loss(here)], marker: { size: 14, color, symbol: SYMBOLS[i % SYMBOLS.length], line: { width: 1, color: ink() } },
        hovertemplate: `trial ${m.trial}: ${here.pattern}, ${here.inner_steps} steps<br>%{x:.3g} ms saved<br>%{y:.2f} points lost<extra></extra>` }];
  });
  return { traces, layout: { xaxis: { title: { text: "milliseconds saved" } }, yaxis: { title: { text: "accuracy lost (points)" } }, showlegend: models.length <= 12 } };
}

function trade() {
  const now = Number($("epsilon").value);
  const epsilon = data.thresholds.epsilons[now];
  const here = models.map((m) => chosenAt(m, now));
  const mean = (f) => here.reduce((sum, c) => sum + f(c), 0) / here.length;
  const verb = (mean(loss) < 0 ? "gain" : "lose") + (models.length === 1 ? "s" : "");
  $("epsilon-value").textContent = `${(100 * epsilon).toFixed(2)} %`;
  $("epsilon").setAttribute("aria-valuetext", `${(100 * epsilon).toFixed(2)} per cent`);
  $("traded").textContent = `With ε = ${(100 * epsilon).toFixed(2)} % the ${models.length === 1 ? "model" : `${models.length} models`} ${verb}${models.length === 1 ? "" : ", on average,"} `
    + `${Math.abs(mean(loss)).toFixed(2)} points of accuracy and ${models.length === 1 ? "saves" : "save"} ${show("adapt_ms", mean(saved))} ms of ${show("adapt_ms", mean((c) => c.adapt_ms_full))} ms.`;
  fill("t-thresholds", ["trial", "pattern", "steps", "accuracy", "lost (points)", "ms", "ms saved", "exact"], models.map((m, i) => {
    const c = here[i];
    return [button(m.trial), c.pattern, String(c.inner_steps), show("accuracy", c.accuracy), loss(c).toFixed(2), show("adapt_ms", c.adapt_ms), show("adapt_ms", saved(c)), c.exact ? "yes" : "no"];
  }));
}

// ------------------------------------------------------------------ the rest of the page

function growth(key, title) {
  const rows = data.cost.history;
  return { traces: [{ type: "scatter", mode: "lines", line: { shape: "hv", color: OKABE[0], width: 2 }, x: rows.map((r) => r[key]), y: rows.map((r) => r.hypervolume), hovertemplate: `%{x:.3g} ${title}: %{y:.3f}<extra></extra>` }],
    layout: { xaxis: { title: { text: title } }, yaxis: { title: { text: "hypervolume" } } } };
}

function words() {
  const head = data.head;
  $("name").textContent = head.name;
  $("summary").textContent = `${head.what}. ${head.trials}; ${data.front.length} of ${head.feasible} feasible ones on the front`
    + `${head.hypervolume === null ? "" : `, hypervolume ${head.hypervolume.toFixed(3)}`}.${head.accuracy ? ` Accuracies are ${head.accuracy}, on validation tasks.` : ""}`
    + `${data.constraints.length ? ` Limits: ${data.constraints.join(", ")}.` : ""}${head.running ? " The sweep was going on when this was written." : ""}`;
  $("n-parallel").textContent = `Each line is a complete trial: its drawn parameters, then its objectives. The darker, the lower its ${objectives[0]}; the thick ones are on the front of what the selection leaves, the grey ones are left out. Where a line breaks, the parameter was not drawn.`;
  const found = data.importances;
  $("n-importances").textContent = found.why ?? `How far the values of a parameter among the best ${Math.round(100 * found.share)} % of ${found.trials} complete trials are from those among all, for each objective alone (PED-ANOVA, Optuna's); shares add up to 100 %. They say what mattered in this space, not which value is best.`;
  const told = data.failures;
  $("n-failures").textContent = told.length ? "By kind; the reason is that of the last one." : "No trial failed.";
  if (told.length) fill("t-failures", ["kind", "trials", "reason", "which"], told.map((f) => [f.kind, String(f.trials.length), f.reason, f.trials.slice(0, 20).join(", ")]), [0, 2, 3]);
  data.cost.lines.forEach((line) => $("cost").append(el("li", line)));
  $("versions").textContent = Object.entries(head.versions).map(([n, v]) => `${n} ${v}`).join(", ");
  const left = data.tables.left_out;
  $("n-patterns").textContent = Object.keys(data.tables.of).length ? `On the front: ${Object.keys(data.tables.of).length} tables.${left ? ` ${left} more would make this file too large.` : ""}` : "No trial of the front left a table.";
  $("n-thresholds").textContent = data.thresholds.why ?? ["Exact: as a trial with this threshold would choose; otherwise the cheapest entry that was scored on all tasks.", ...data.thresholds.left_out].join(" ");
  $("slide").hidden = !models.length;
}

function start() {
  words();
  controls();
  Object.keys(data.tables.of).forEach((id) => $("table").append(el("option", id, { value: id })));
  const tables = Object.keys(data.tables.of).length > 0;
  figure("f-front", complete.length > 0, drawFront);
  figure("f-parallel", complete.length > 0, parallel);
  figure("f-importances", Boolean(data.importances.of), importances);
  figure("f-accuracy", tables, () => heat(2));
  figure("f-ms", tables, () => heat(3));
  figure("f-thresholds", models.length > 0, thresholds);
  figure("f-by-trials", data.cost.history.length > 1, () => growth("trials", "trials ended"));
  figure("f-by-hours", data.cost.history.length > 1, () => growth("hours", "hours of trial time"));
  $("table").onchange = () => redraw("f-accuracy", "f-ms");
  if (models.length) {
    $("epsilon").max = data.thresholds.epsilons.length - 1;
    $("epsilon").value = data.thresholds.epsilons.indexOf(0.01);
    $("epsilon").oninput = () => { trade(); redraw("f-thresholds"); };
    trade();
  }
  select();
  if (data.front.length) choose(data.front[0]);
}

async function painted() {
  const still = document.querySelector(".still");
  if (still) await still.decode().catch(() => {});
  await new Promise((go) => { requestAnimationFrame(() => setTimeout(go)); setTimeout(go, 1000); }); // no frames: a hidden tab
  if (still) document.documentElement.dataset.shown = String(Math.round(performance.now()));
}

async function watch() {
  await painted();
  read();
  const near = new IntersectionObserver((seen) => seen.filter((e) => e.isIntersecting).forEach((e) => {
    near.unobserve(e.target);
    draw(e.target.id);
    document.documentElement.dataset.ready ??= String(Math.round(performance.now()));
  }), { rootMargin: "400px" });
  figures.forEach((_, id) => near.observe($(id)));
  dark.addEventListener("change", () => redraw(...figures.keys()));
}

start(); // words and tables are there before Plotly is read
addEventListener("beforeprint", () => { read(); figures.forEach((_, id) => draw(id)); });
addEventListener("DOMContentLoaded", watch);
