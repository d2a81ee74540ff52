"use strict";
// Sorting, filtering and figures of the report. Everything from records enters as text, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const sections = [...document.querySelectorAll("section.comparison")];
  const known = new Map(data.comparisons.map((each) => [each.id, each]));
  const charts = new Map(); // by section: functions that draw its figures again
  const SVG = "http://www.w3.org/2000/svg";

  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function shape(tag, attributes = {}, text = "") {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== "") made.textContent = text;
    return made;
  }

  // --- what a reader chose, kept while this tab is open: bench serve loads the page anew ----

  const KEY = `bench ${location.pathname}`;
  const chosen = (() => {
    try { return new Map(JSON.parse(sessionStorage.getItem(KEY)) ?? []); } catch { return new Map(); }
  })();

  function keep(name, value, usual) {
    if (value === usual) chosen.delete(name); else chosen.set(name, value);
    try { sessionStorage.setItem(KEY, JSON.stringify([...chosen])); } catch { /* full, or not allowed here */ }
  }

  const told = (head) => head.textContent.replace("\n", " ");
  const sectionOf = (element) => element.closest("section")?.querySelector("h2")?.id ?? "";
  const tableName = (table) => `sort ${sectionOf(table)} ${table.caption?.textContent}`;

  // --- sorting ---------------------------------------------------------------------------

  function numberIn(text) {
    const found = /^[^\d+\-.]*([+-]?\d*\.?\d+(?:e[+-]?\d+)?)/i.exec(text.trim());
    return found ? Number(found[1]) : null;
  }

  function sort(head) {
    const table = head.closest("table");
    const words = head.cellIndex === 0 || head.classList.contains("text");
    const first = words ? "ascending" : "descending";
    const second = words ? "descending" : "ascending";
    const now = head.getAttribute("aria-sort");
    const next = now === first ? second : now === second ? "none" : first;
    order(head, next);
    keep(tableName(table), next === "none" ? null : JSON.stringify([told(head), next]), null);
  }

  function order(head, next) {
    const table = head.closest("table");
    const column = head.cellIndex;
    const words = column === 0 || head.classList.contains("text");
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    if (next !== "none") head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    for (const body of table.tBodies) {
      const rows = [...body.rows].map((row, i) => {
        row.dataset.place ??= i;
        const text = row.cells[column].textContent;
        return { row, place: Number(row.dataset.place), key: words ? text : numberIn(text) };
      });
      rows.sort((a, b) => {
        if (next === "none") return a.place - b.place;
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
        const difference = words ? a.key.localeCompare(b.key) : a.key - b.key;
        return sign * difference || a.place - b.place;
      });
      body.append(...rows.map((each) => each.row));
    }
  }

  function sortAgain() {
    for (const table of document.querySelectorAll("table.sortable")) {
      const [title, next] = JSON.parse(chosen.get(tableName(table)) ?? "[]");
      const head = [...table.tHead.rows[0].cells].find((each) => told(each) === title);
      if (head) order(head, next);
    }
  }

  // --- filters ---------------------------------------------------------------------------

  const wanted = { words: [], references: true };

  function named(name) {
    const lower = name.toLowerCase();
    return wanted.words.length === 0 || wanted.words.some((word) => lower.includes(word));
  }

  function filterRows() {
    for (const row of document.querySelectorAll("section:not(.answer) table.sortable tbody tr")) {
      row.hidden = !named(row.cells[0].textContent);
    }
    for (const body of document.querySelectorAll("tbody.references")) body.hidden = !wanted.references;
    for (const again of charts.values()) again();
  }

  function checkbox(text, name, change) {
    const box = make("input", { type: "checkbox" });
    box.checked = chosen.get(name) ?? true;
    box.addEventListener("change", () => {
      change(box.checked);
      keep(name, box.checked, true);
    });
    if (!box.checked) change(false);
    return make("label", {}, box, ` ${text}`);
  }

  const FACETS = { suite: "Suites", model: "Models", variant: "Variants", device: "Devices" };

  function sectionToggles() {
    const off = new Set();
    const made = [];
    for (const [facet, title] of Object.entries(FACETS)) {
      const values = [...new Set(sections.map((each) => each.dataset[facet]))];
      if (values.length < 2) continue;
      const group = make("fieldset", {}, make("legend", {}, title));
      for (const value of values) {
        group.append(checkbox(value, `${facet} ${value}`, (on) => {
          off[on ? "delete" : "add"](`${facet} ${value}`);
          for (const each of sections) {
            each.hidden = Object.keys(FACETS).some((f) => off.has(`${f} ${each.dataset[f]}`));
            const link = document.querySelector(`.contents a[href="#${CSS.escape(each.dataset.id)}"]`);
            if (link) link.parentElement.hidden = each.hidden;
          }
        }));
      }
      made.push(group);
    }
    return made;
  }

  function columnToggles() {
    const heads = new Map();
    for (const head of document.querySelectorAll("section.comparison table.sortable thead th:not(:first-child)")) {
      const title = told(head);
      if (!heads.has(title)) heads.set(title, []);
      heads.get(title).push(head);
    }
    const group = make("fieldset", {}, make("legend", {}, "Columns"));
    for (const [title, cells] of heads) {
      group.append(checkbox(title, `column ${title}`, (on) => {
        for (const head of cells) {
          for (const row of head.closest("table").rows) row.cells[head.cellIndex].hidden = !on;
        }
      }));
    }
    return make("details", {}, make("summary", {}, "Columns"), group);
  }

  function controls() {
    const place = document.getElementById("controls");
    const box = make("input", { type: "search", id: "filter", placeholder: "as tent, edgeta" });
    const filter = () => {
      wanted.words = box.value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
      filterRows();
    };
    box.addEventListener("input", () => {
      filter();
      keep("methods", box.value, "");
    });
    place.append(make("label", {}, "Methods ", box), ...sectionToggles());
    if (document.querySelector("tbody.references")) {
      place.append(checkbox("supervised references (†)", "references", (on) => { wanted.references = on; filterRows(); }));
    }
    place.append(columnToggles());
    place.hidden = false;
    box.value = chosen.get("methods") ?? "";
    filter();
  }

  function select(name, options, usual) {
    const made = make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
    return remembered(made, name, usual);
  }

  function remembered(box, name, usual) {
    const known = chosen.get(name);
    box.value = known ?? usual;
    if (box.selectedIndex === -1) box.value = usual; // that option is gone
    box.addEventListener("change", () => keep(name, box.value, usual));
    return box;
  }

  // --- the best within a budget ------------------------------------------------------------

  function budget() {
    const place = document.getElementById("budget");
    const found = data.comparisons.filter((each) => Object.keys(each.within).length);
    if (!place || !found.length) return;
    const limit = make("input", { type: "number", id: "limit", min: "0", step: "any", placeholder: "as 10" });
    const cost = select("budget of", Object.entries(data.within).map(([name, { title }]) => [name, title]), "energy");
    cost.setAttribute("aria-label", "of which cost");
    const table = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Best within a budget", "aria-live": "polite" });
    const show = () => {
      const { title, heads, kinds } = data.within[cost.value];
      const most = limit.valueAsNumber;
      table.hidden = !(most >= 0);
      if (table.hidden) return;
      const made = make("table", {}, make("caption", {}, `Best within ${most} ${title}${kinds && ` (${kinds})`}`));
      const line = make("tr");
      ["where", ...heads].forEach((head, i) => line.append(make("th", { scope: "col", class: i < 4 ? "text" : "" }, head.replace(" (", "\n("))));
      const body = make("tbody");
      for (const each of found) {
        const { none, steps } = each.within[cost.value];
        const cells = steps.findLast(([from]) => from <= most)?.[1] ?? [none, ...heads.slice(1).map(() => "–")];
        const row = make("tr", {}, make("th", { scope: "row" }, each.place));
        cells.forEach((cell, i) => row.append(make("td", { class: i < 3 ? "text" : "" }, cell)));
        body.append(row);
      }
      made.append(make("thead", {}, line), body);
      table.replaceChildren(made, make("p", { class: "meta" }, data.withinNote));
    };
    limit.value = chosen.get("budget") ?? "";
    limit.addEventListener("input", () => {
      keep("budget", limit.value, "");
      show();
    });
    cost.addEventListener("change", show);
    place.append(make("p", {}, make("label", { for: "limit" }, "Which is the best within a budget of "), limit, " ", cost, "?"), table);
    place.hidden = false;
    show();
  }

  // --- the runs behind a row ---------------------------------------------------------------

  function showRuns(section, name) {
    const row = known.get(section.dataset.id).rows.find((each) => each.name === name || each.label === name);
    if (!row) return;
    const box = document.getElementById("runs");
    const table = make("table", { class: "prose" });
    const head = make("tr");
    for (const title of ["source draw", "seed", "status", "score (%)", "record", "log"]) head.append(make("th", { scope: "col" }, title));
    const body = make("tbody");
    for (const [draw, seed, status, score, record, log] of row.runs) {
      const line = make("tr");
      for (const text of [draw, seed, status, score ?? "–", `records/${record}.json`, log || "–"]) line.append(make("td", {}, String(text)));
      body.append(line);
    }
    table.append(make("thead", {}, head), body);
    const close = make("button", { type: "button", class: "close" }, "Close");
    close.addEventListener("click", () => box.close());
    const facts = [`Settings: ${row.settings}.`, row.changed && `Differing from its defaults: ${row.changed}.`, row.kinds && `Adaptation time: ${row.kinds}.`, row.paper && `Paper: ${row.paper}`];
    box.replaceChildren(make("h2", { id: "runs-title" }, `${row.name}: its runs`),
      ...facts.filter(Boolean).map((text) => make("p", {}, text)),
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "runs" }, table), close);
    box.showModal();
  }

  // --- figures -----------------------------------------------------------------------------

  const W = 760, H = 380, LEFT = 56, RIGHT = 14, TOP = 12;

  function ticks(low, high, count = 6) {
    const raw = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((f) => f * power).find((each) => each >= raw);
    const made = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) made.push(Number(at.toPrecision(12)));
    return made;
  }

  function marker(kind, x, y, r, attributes) {
    const around = (n, turn, inner = 1) => Array.from({ length: n }, (_, i) => {
      const angle = (2 * Math.PI * i) / n + turn, far = i % 2 ? r * inner : r;
      return `${(x + far * Math.sin(angle)).toFixed(1)},${(y - far * Math.cos(angle)).toFixed(1)}`;
    }).join(" ");
    if (kind === "o") return shape("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r, ...attributes });
    const points = { s: around(4, Math.PI / 4), D: around(4, 0), "^": around(3, 0), v: around(3, Math.PI),
      P: around(8, Math.PI / 4, 0.45), X: around(8, 0, 0.45), p: around(5, 0) }[kind] ?? around(4, 0);
    return shape("polygon", { points, ...attributes });
  }

  function frame(bottom, yTicks, yOf, yTitle, xTitle) {
    const svg = shape("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" });
    for (const each of yTicks) {
      const y = yOf(each);
      svg.append(shape("path", { class: "grid", d: `M${LEFT} ${y}H${W - RIGHT}` }),
        shape("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, String(each)));
    }
    svg.append(shape("path", { class: "axis", d: `M${LEFT} ${TOP}V${H - bottom}H${W - RIGHT}` }),
      shape("text", { transform: `translate(14 ${(TOP + H - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle),
      shape("text", { x: (LEFT + W - RIGHT) / 2, y: H - 4, "text-anchor": "middle" }, xTitle));
    return svg;
  }

  function scale(low, high, from, to) {
    const span = high - low || 1;
    return (value) => from + ((value - low) / span) * (to - from);
  }

  function scores(values) {
    let low = Math.min(...values), high = Math.max(...values);
    const pad = Math.max(1, 0.05 * (high - low));
    return [Math.max(0, low - pad), Math.min(100, high + pad)];
  }

  const dashes = (row) => (row.source ? "6 4" : row.competes ? "" : "2 3");
  const finite = (point) => point.filter((value) => value !== null);

  function streamFigure(comparison, rows) {
    const shown = rows.filter((row) => row.course.length);
    if (!shown.length) return null;
    const longest = Math.max(...comparison.stages.map((name) => name.length));
    const bottom = Math.min(150, 40 + 5 * longest);
    const [low, high] = scores(shown.flatMap((row) => row.course.flatMap((point) => finite(point.slice(1)))));
    const yOf = scale(low, high, H - bottom, TOP);
    const xOf = scale(-0.5, comparison.stages.length - 0.5, LEFT, W - RIGHT);
    const svg = frame(bottom, ticks(low, high), yOf, comparison.axis, "target domain, in the order of the stream");
    const every = Math.ceil(comparison.stages.length / 40);
    comparison.stages.forEach((name, i) => {
      if (i % every === 0) svg.append(shape("text", { transform: `translate(${xOf(i).toFixed(1)} ${H - bottom + 14}) rotate(-40)`, "text-anchor": "end" }, name));
    });
    for (const row of shown) {
      const { color, marker: kind } = data.look[row.label];
      const group = shape("g", { "data-row": row.name });
      const band = row.course.filter((point) => point[2] !== null);
      if (band.length === row.course.length && band.length > 1) {
        const there = band.map(([x, , , up]) => `${xOf(x).toFixed(1)} ${yOf(up).toFixed(1)}`);
        const back = band.map(([x, , down]) => `${xOf(x).toFixed(1)} ${yOf(down).toFixed(1)}`).reverse();
        group.append(shape("path", { d: `M${[...there, ...back].join("L")}Z`, fill: color, opacity: row.supervised ? 0.07 : 0.13 }));
      }
      const line = row.course.map(([x, y]) => `${xOf(x).toFixed(1)} ${yOf(y).toFixed(1)}`).join("L");
      group.append(shape("path", { d: `M${line}`, stroke: color, fill: "none", "stroke-width": 1.8, "stroke-dasharray": dashes(row) }));
      for (const [x, y, down, up] of row.course) {
        const point = marker(kind, xOf(x), yOf(y), 4, { fill: color });
        point.dataset.tip = `${row.name}, ${comparison.stages[x]}: ${words([y, down, up], "%")}`;
        group.append(point);
      }
      svg.append(group);
    }
    svg.setAttribute("aria-label", `${comparison.title} of ${shown.length} methods; the numbers stand in the tables`);
    return svg;
  }

  function words([mean, low, high], unit) {
    const shown = (value) => String(Number(value.toPrecision(3)));
    return low === null || shown(low) === shown(high) ? `${shown(mean)} ${unit}` : `${shown(mean)} ${unit} (95 %: ${shown(low)} to ${shown(high)})`;
  }

  function tradeoffFigure(comparison, rows, cost) {
    const shown = rows.filter((row) => row.score && row.costs[cost.name]);
    if (!shown.length) return null;
    const bottom = 44;
    const spent = shown.flatMap((row) => finite(row.costs[cost.name]));
    const positive = spent.filter((value) => value > 0);
    const most = Math.max(...spent), least = Math.min(...positive);
    const logarithmic = positive.length > 0 && most > 30 * least;
    const [low, high] = scores(shown.flatMap((row) => finite(row.score)));
    const yOf = scale(low, high, H - bottom, TOP);
    let xOf, marks;
    if (logarithmic) { // zeros stand at the left, apart
      const inner = scale(Math.log10(least), Math.log10(most), LEFT + 50, W - RIGHT - 12);
      xOf = (value) => (value > 0 ? Math.max(inner(Math.log10(value)), LEFT + 30) : LEFT + 14);
      marks = [0, ...Array.from({ length: 13 }, (_, i) => 10 ** (i - 6)).filter((at) => at >= least && at <= most)];
    } else {
      xOf = scale(Math.min(...spent), most, LEFT + 16, W - RIGHT - 12);
      marks = ticks(Math.min(...spent), most);
    }
    const svg = frame(bottom, ticks(low, high), yOf, comparison.axis, cost.title + (logarithmic ? ", logarithmic" : ""));
    for (const at of marks) {
      svg.append(shape("path", { class: "grid", d: `M${xOf(at).toFixed(1)} ${TOP}V${H - bottom}` }),
        shape("text", { x: xOf(at).toFixed(1), y: H - bottom + 16, "text-anchor": "middle" }, String(at)));
    }
    const front = [];
    for (const row of shown.filter((each) => each.competes).sort((a, b) => a.costs[cost.name][0] - b.costs[cost.name][0] || b.score[0] - a.score[0])) {
      if (!front.length || row.score[0] > front.at(-1).score[0]) front.push(row);
    }
    if (front.length) {
      let path = "";
      front.forEach((row, i) => {
        const x = xOf(row.costs[cost.name][0]).toFixed(1), y = yOf(row.score[0]).toFixed(1);
        path += i ? `H${x}V${y}` : `M${x} ${y}`;
      });
      svg.append(shape("path", { class: "front", d: `${path}H${W - RIGHT}` }));
    }
    for (const row of shown) {
      const { color, marker: kind } = data.look[row.label];
      const [x, left, right] = row.costs[cost.name], [y, down, up] = row.score;
      const group = shape("g", { "data-row": row.name });
      let bars = "";
      if (left !== null) bars += `M${xOf(left).toFixed(1)} ${yOf(y).toFixed(1)}H${xOf(right).toFixed(1)}`;
      if (down !== null) bars += `M${xOf(x).toFixed(1)} ${yOf(down).toFixed(1)}V${yOf(up).toFixed(1)}`;
      if (bars) group.append(shape("path", { d: bars, stroke: color, fill: "none" }));
      const point = marker(kind, xOf(x), yOf(y), 6, { fill: row.competes ? color : "var(--paper)", stroke: color, "stroke-width": 1.5 });
      point.dataset.tip = `${row.name}: ${words([y, down, up], "%")} at ${words([x, left, right], cost.title.replace(/^[^(]*\(|,.*$/g, ""))}`;
      group.append(point);
      svg.append(group);
    }
    svg.setAttribute("aria-label", `${comparison.axis} against ${cost.title} of ${shown.length} methods; the numbers stand in the tables`);
    return svg;
  }

  function matrixFigure(comparison, row) {
    const stages = comparison.stages, n = stages.length;
    const left = 20 + 6 * Math.max(...stages.map((name) => name.length)), side = Math.min(34, 420 / n);
    const height = TOP + n * side + left + 10;
    const svg = shape("svg", { viewBox: `0 0 ${W} ${height.toFixed(0)}`, role: "img" });
    stages.forEach((name, i) => {
      const at = (i + 0.5) * side;
      svg.append(shape("text", { x: left - 6, y: TOP + at + 4, "text-anchor": "end" }, name),
        shape("text", { transform: `translate(${(left + at).toFixed(1)} ${TOP + n * side + 12}) rotate(-60)`, "text-anchor": "end" }, name));
      row.matrix[i].forEach((value, j) => {
        const cell = shape("rect", { x: left + j * side, y: TOP + i * side, width: side, height: side, fill: "var(--mark)", opacity: (0.06 + 0.94 * value / 100).toFixed(3) });
        cell.dataset.tip = `${row.name}: ${value} % on ${stages[j]}, after ${i ? stages[i] : "the source"}`;
        svg.append(cell);
      });
    });
    svg.setAttribute("aria-label", `${comparison.axis} of ${row.name} on each stage after each was learned`);
    return svg;
  }

  function wireMatrix(figure, comparison) {
    const picker = figure.querySelector("select"), chart = figure.querySelector(".chart"), tip = figure.querySelector(".tip");
    const rows = comparison.rows.filter((row) => row.matrix);
    for (const row of rows) picker.append(make("option", { value: row.name }, row.name));
    const again = () => chart.replaceChildren(matrixFigure(comparison, rows.find((row) => row.name === picker.value)));
    remembered(picker, `matrix of ${comparison.id}`, (rows.find((row) => !row.source) ?? rows[0]).name);
    picker.addEventListener("change", again);
    chart.addEventListener("pointerover", (event) => { tip.textContent = event.target.dataset?.tip ?? tip.textContent; });
    again();
  }

  function figures(section) {
    const comparison = known.get(section.dataset.id);
    const on = new Map(comparison.rows.map((row) => [row.name, row.shown]));
    const parts = [];

    function visible(row, picked) {
      return named(row.name) && (wanted.references || !row.supervised) && (wanted.words.length ? true : picked);
    }

    function wire(figure, draw, usable, crowded) {
      const chart = figure.querySelector(".chart"), tip = figure.querySelector(".tip");
      const nameOf = (row) => `line ${comparison.id} ${figure.dataset.kind} ${row.name}`;
      const usual = (row) => (crowded ? on.get(row.name) : true);
      const picked = new Map(comparison.rows.map((row) => [row.name, chosen.get(nameOf(row)) ?? usual(row)]));
      const place = make("div"), key = make("div", { class: "key", role: "group", "aria-label": "methods shown" });
      chart.replaceChildren(place, key);
      const again = () => {
        const made = draw(comparison.rows.filter((row) => visible(row, picked.get(row.name))));
        place.replaceChildren(made ?? make("p", {}, "No method is chosen."));
      };
      for (const row of comparison.rows.filter(usable)) {
        const { color, marker: kind } = data.look[row.label];
        const icon = shape("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" });
        icon.append(marker(kind, 7, 7, 5, { fill: row.competes ? color : "none", stroke: color }));
        const button = make("button", { type: "button", "aria-pressed": String(picked.get(row.name)) }, icon, row.name);
        button.addEventListener("click", () => {
          picked.set(row.name, !picked.get(row.name));
          keep(nameOf(row), picked.get(row.name), usual(row));
          button.setAttribute("aria-pressed", String(picked.get(row.name)));
          again();
        });
        const emphasise = (name) => {
          for (const group of place.querySelectorAll("g[data-row]")) group.classList.toggle("faint", name !== null && group.dataset.row !== name);
        };
        for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => emphasise(row.name));
        for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => emphasise(null));
        key.append(button);
      }
      place.addEventListener("pointerover", (event) => { tip.textContent = event.target.dataset?.tip ?? tip.textContent; });
      parts.push(again);
      again();
      return again;
    }

    for (const figure of section.querySelectorAll("figure[data-kind]")) {
      if (figure.dataset.kind === "stream") {
        wire(figure, (rows) => streamFigure(comparison, rows), (row) => row.course.length, true);
      } else if (figure.dataset.kind === "matrix") {
        wireMatrix(figure, comparison);
      } else {
        const picker = figure.querySelector("select"), costs = comparison.costs;
        for (const cost of costs) picker.append(make("option", { value: cost.name }, cost.title));
        const usual = (costs.find((cost) => cost.name === "energy") ?? costs[0]).name;
        remembered(picker, `cost of ${comparison.id}`, usual);
        const against = () => costs.find((cost) => cost.name === picker.value);
        const again = wire(figure, (rows) => tradeoffFigure(comparison, rows, against()), (row) => row.score, false);
        picker.addEventListener("change", again);
      }
    }
    return () => parts.forEach((again) => again());
  }

  // --- start -------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.classList.contains("sort")) sort(button.closest("th"));
    if (button?.classList.contains("open")) showRuns(button.closest("section"), button.textContent);
  });

  // Why a cell is empty, where the pointer rests on it; the list below the tables has it for all.
  function tellReasons(section) {
    const lacking = new Map();
    for (const { name, runs } of known.get(section.dataset.id).rows) {
      const run = runs.find(([, , status]) => status !== "ok");
      if (run) lacking.set(name, run[2]);
    }
    if (!lacking.size) return;
    for (const line of section.querySelectorAll("table.sortable tbody tr")) {
      const reason = lacking.get(line.cells[0].textContent);
      for (const cell of reason ? [...line.cells].slice(1) : []) if (!/\d/.test(cell.textContent) && !cell.classList.contains("text")) cell.title = reason;
    }
  }

  const seen = new Set();
  function drawSection(section) {
    if (seen.has(section)) return;
    seen.add(section);
    tellReasons(section);
    if (section.querySelector("figure[data-kind]")) charts.set(section, figures(section));
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) drawSection(entry.target);
  }, { rootMargin: "600px" });
  for (const section of sections) watcher.observe(section);
  window.addEventListener("beforeprint", () => sections.forEach(drawSection));
  for (const each of document.querySelectorAll("details")) {
    const name = `open ${sectionOf(each)} ${each.querySelector("summary").textContent}`;
    if (chosen.get(name)) each.open = true;
    each.addEventListener("toggle", () => keep(name, each.open, false));
  }
  budget();
  controls();
  sortAgain();
})();
