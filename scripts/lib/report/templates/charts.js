"use strict";
// Charts as SVG: panels above each other that share the abscissa, drawn when they come into view.
// A trace is one path, however many points it has; colours follow the style sheet.
const charts = (() => {
  const svgns = "http://www.w3.org/2000/svg";
  const waiting = new Map();

  function draw(tag, attributes, ...children) {
    const element = document.createElementNS(svgns, tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  // ------------------------------------------------------------------ when to draw
  const watcher = "IntersectionObserver" in window
    ? new IntersectionObserver((entries) => { for (const entry of entries) if (entry.isIntersecting) now(entry.target); }, { rootMargin: "400px" })
    : null;
  function now(place) {
    const work = waiting.get(place);
    if (!work) return;
    waiting.delete(place);
    if (watcher) watcher.unobserve(place);
    work();
  }
  // Calls `work` once `place` is near the window, or is to be printed.
  function whenSeen(place, work) {
    waiting.set(place, work);
    if (watcher) watcher.observe(place); else now(place);
  }
  window.addEventListener("beforeprint", () => { for (const place of [...waiting.keys()]) if (place.dataset.print !== "no") now(place); });

  // ------------------------------------------------------------------ scales
  function niceStep(span, number) {
    const rough = span / Math.max(1, number);
    const unit = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * unit).find((step) => step >= rough * 0.999) || 10 * unit;
  }
  const clockSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400].map((seconds) => 1000 * seconds);
  function timeStep(span, number) {
    const rough = span / Math.max(1, number);
    return clockSteps.find((step) => step >= rough) || 86400e3 * Math.max(1, Math.ceil(niceStep(span / 86400e3, number)));
  }
  function ticks(low, high, step, label) {
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) found.push([k * step, label(k * step)]);
    return found;
  }
  function numberTicks(low, high, number) {
    const step = niceStep(high - low, number);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return ticks(low, high, step, (value) => (Math.abs(value) < step / 2 ? 0 : value).toFixed(digits).replace("-", "−"));
  }
  function timeTicks(low, high, number) {
    const step = timeStep(high - low, number);
    const iso = (value) => new Date(value).toISOString();
    let day = "";
    return ticks(low, high, step, (value) => {
      const text = iso(value);
      const clock = step >= 86400e3 ? text.slice(5, 10) : text.slice(11, step < 60e3 ? 19 : 16);
      const fresh = text.slice(0, 10) !== day && step < 86400e3 && high - low > 43200e3;
      day = text.slice(0, 10);
      return fresh ? `${text.slice(5, 10)} ${clock}` : clock;
    });
  }
  function extent(values, lengths = null) {
    let [low, high] = [Infinity, -Infinity];
    values.forEach((value, i) => {
      const reach = lengths && Number.isFinite(lengths[i]) ? lengths[i] : 0;
      if (Number.isFinite(value)) { low = Math.min(low, value - reach); high = Math.max(high, value + reach); }
    });
    return [low, high];
  }
  function padded([low, high], part, least) {
    if (!(low <= high)) return [0, 1];
    const more = Math.max(part * (high - low), least);
    return [low - more, high + more];
  }

  // ------------------------------------------------------------------ marks
  const marks = {
    dot: (x, y) => `M${x} ${y}h0`,
    cross: (x, y) => `M${x - 3.5} ${y - 3.5}l7 7m0 -7l-7 7`,
    limit: (x, y) => `M${x - 4.5} ${y}h9M${x} ${y}v9m-3 -4l3 4l3 -4`,
    square: (x, y) => `M${x - 4} ${y - 4}h8v8h-8z`,
  };

  // Draws a chart into `place` and keeps it as wide as that. See `spec` in night.js.
  function chart(place, spec) {
    const hidden = new Set();
    let view = {};
    let points = [];
    let geometry = [];
    const note = document.createElement("div");
    const svg = draw("svg", { role: "img", "aria-label": spec.label });
    note.className = "legend";
    place.replaceChildren(note, svg);
    place.classList.add("chart");

    const button = (text, work) => {
      const one = document.createElement("button");
      one.type = "button";
      one.textContent = text;
      one.addEventListener("click", work);
      return one;
    };
    const groups = new Map();
    for (const trace of spec.traces) if (trace.group && !groups.has(trace.group)) groups.set(trace.group, trace.colour);
    if (spec.legend && groups.size > 1) {
      for (const [name, colour] of groups) {
        const one = button(name, () => {
          if (hidden.has(name)) hidden.delete(name); else hidden.add(name);
          one.setAttribute("aria-pressed", String(!hidden.has(name)));
          redraw();
        });
        one.className = "key-button";
        one.setAttribute("aria-pressed", "true");
        one.title = `show or hide ${name}`;
        const swatch = document.createElement("i");
        swatch.style.background = colour;
        one.prepend(swatch);
        note.append(one);
      }
    }
    const reset = button("whole range", () => { view = {}; redraw(); });
    reset.hidden = true;
    note.append(reset, spec.save ? button("save as SVG", save) : "");

    function save() {
      const copy = svg.cloneNode(true);
      const style = getComputedStyle(document.documentElement);
      const colours = ["--ink", "--muted", "--line", "--paper", "--accent"].map((name) => `${name}:${style.getPropertyValue(name)}`).join(";");
      copy.setAttribute("xmlns", svgns);
      copy.prepend(draw("style", {}, `svg{${colours};background:var(--paper);font:12px sans-serif}.grid{stroke:var(--line)}.frame{fill:none;stroke:var(--muted)}text{fill:var(--ink)}.catch{fill:none}`));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
      link.download = `${spec.save}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }

    function xRange() {
      if (view.x) return view.x;
      if (spec.xRange) return spec.xRange;
      const [low, high] = extent(spec.traces.flatMap((trace) => trace.x));
      return padded([low, high], 0.03, spec.time ? 30e3 : 1e-9);
    }
    function yRange(panel, shown) {
      if (view.y && view.y[panel.key]) return view.y[panel.key];
      if (panel.names) return [panel.names.length - 0.4, -0.6];
      let range = panel.range;
      if (!range) {
        let [low, high] = [Infinity, -Infinity];
        for (const trace of shown) {
          const [a, b] = extent(trace.y, trace.error);
          [low, high] = [Math.min(low, a), Math.max(high, b)];
        }
        if (panel.zero) low = Math.min(low, 0);
        range = padded([low, high], 0.08, panel.least || 1e-3);
        if (panel.zero && low === 0) range[0] = 0;
      }
      return panel.reverse ? [range[1], range[0]] : range;
    }

    function redraw() {
      const width = Math.max(240, place.clientWidth - 2);
      const small = width < 560;
      const [x0, x1] = xRange();
      const axes = spec.panels.map((panel) => {
        const shown = spec.traces.filter((trace) => trace.panel === panel.key && !hidden.has(trace.group));
        const [y0, y1] = yRange(panel, shown);
        const number = Math.max(3, (panel.height || 110) / 26);
        return { shown, y0, y1, ys: panel.names ? panel.names.map((name, k) => [k, name]) : numberTicks(Math.min(y0, y1), Math.max(y0, y1), number) };
      });
      const longest = Math.max(...axes.flatMap((one) => one.ys.map(([, text]) => text.length)));
      const left = Math.min(0.3 * width, 26 + 7 * Math.max(2, longest));
      const right = 12;
      const inner = width - left - right;
      const parts = [];
      points = [];
      geometry = [];
      let top = 8;
      spec.panels.forEach((panel, number) => {
        const { shown, y0, y1, ys } = axes[number];
        let height = panel.names ? 12 + 22 * panel.names.length : panel.height || 110;
        if (panel.equal) height = Math.min(inner * (panel.range[1] - panel.range[0]) / (x1 - x0), 460);
        const px = (value) => left + (inner * (value - x0)) / (x1 - x0);
        const py = (value) => top + height - (height * (value - y0)) / (y1 - y0);
        const fixed = (value) => Math.round(10 * value) / 10;
        const last = number === spec.panels.length - 1;
        const clip = `clip-${spec.id}-${number}`;
        geometry.push({ panel, top, height, left, inner, x0, x1, y0, y1 });
        const xs = (spec.time ? timeTicks : numberTicks)(x0, x1, inner / (small ? 70 : 90));
        let grid = "";
        for (const [value] of panel.bare ? [] : xs) grid += `M${fixed(px(value))} ${top}v${height}`;
        for (const [value] of panel.bare ? [] : ys) grid += `M${left} ${fixed(py(value))}h${inner}`;
        parts.push(draw("path", { class: "grid", d: grid, fill: "none" }), draw("rect", { class: "frame", x: left, y: top, width: inner, height }));
        for (const [value, text] of ys) parts.push(draw("text", { x: left - 6, y: fixed(py(value)) + 4, "text-anchor": "end" }, text));
        if (last) {
          for (const [value, text] of xs) parts.push(draw("text", { x: fixed(px(value)), y: top + height + 16, "text-anchor": "middle" }, text));
          if (spec.xTitle) parts.push(draw("text", { x: left + inner / 2, y: top + height + 33, "text-anchor": "middle" }, spec.xTitle));
        }
        if (panel.title) parts.push(draw("text", { transform: `translate(12 ${top + height / 2}) rotate(-90)`, "text-anchor": "middle" }, panel.title));
        const layer = draw("g", { "clip-path": `url(#${clip})` });
        parts.push(draw("clipPath", { id: clip }, draw("rect", { x: left, y: top - 4, width: inner, height: height + 8 })), layer);
        for (const [low, high, colour] of panel.bands || []) layer.append(draw("rect", { x: left, width: inner, y: Math.min(py(low), py(high)), height: Math.abs(py(high) - py(low)), fill: colour, opacity: 0.25 }));
        for (const trace of shown) {
          let path = "";
          let bars = "";
          const mark = marks[trace.mark];
          trace.x.forEach((value, i) => {
            if (!Number.isFinite(value) || !Number.isFinite(trace.y[i])) return;
            const [x, y] = [fixed(px(value)), fixed(py(trace.y[i]))];
            if (trace.to) {
              path += `M${x} ${y}L${fixed(px(trace.to[i][0]))} ${fixed(py(trace.to[i][1]))}`;
              return;
            }
            path += mark(x, y);
            if (trace.error && Number.isFinite(trace.error[i])) bars += `M${x} ${fixed(py(trace.y[i] - trace.error[i]))}V${fixed(py(trace.y[i] + trace.error[i]))}`;
            points.push([x, y, trace, i]);
          });
          if (bars) layer.append(draw("path", { d: bars, stroke: trace.colour, "stroke-width": 1.2, fill: "none", opacity: trace.faint ? 0.45 : null }));
          const round = trace.mark === "dot" && !trace.to;
          layer.append(draw("path", {
            d: path, stroke: trace.colour, fill: "none", opacity: trace.faint ? 0.45 : null,
            "stroke-width": round ? trace.size || 7 : 1.6, "stroke-linecap": round ? "round" : null,
          }));
        }
        if (panel.scale) {
          // The length of a vector of round size, in the corner.
          const long = Math.abs(px(panel.scale.length) - px(0));
          const [x, y] = [left + 10, top + height - 10];
          parts.push(
            draw("rect", { x: x - 5, y: y - 21, width: Math.max(long, 46) + 14, height: 27, fill: "var(--paper)", opacity: 0.85 }),
            draw("path", { d: `M${x} ${y}h${fixed(long)}m-4 -3l4 3l-4 3`, stroke: "var(--ink)", "stroke-width": 1.6, fill: "none" }),
            draw("text", { x, y: y - 7 }, panel.scale.label));
        }
        top += height + (last ? 0 : 14);
      });
      const full = top + (spec.xTitle ? 42 : 26);
      svg.setAttribute("width", width);
      svg.setAttribute("height", full);
      svg.setAttribute("viewBox", `0 0 ${width} ${full}`);
      svg.replaceChildren(...parts, ring);
      reset.hidden = !view.x;
    }

    // -- pointer: values, a click, a range
    const ring = draw("path", { class: "ring", fill: "none", visibility: "hidden" });
    const at = (event) => {
      const box = svg.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    function nearest(event, reach) {
      const [x, y] = at(event);
      let [best, found] = [reach * reach, null];
      for (const point of points) {
        const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
        if (distance < best) [best, found] = [distance, point];
      }
      return found;
    }
    let start = null;
    svg.addEventListener("pointermove", (event) => {
      if (start && spec.zoom && event.pointerType === "mouse") {
        const [x, y] = at(event);
        if (Math.hypot(x - start[0], y - start[1]) < 6) return;
        spec.leave?.();
        ring.setAttribute("d", `M${start[0]} ${start[1]}H${x}V${y}H${start[0]}z`);
        ring.setAttribute("visibility", "visible");
        return;
      }
      const found = nearest(event, 14);
      ring.setAttribute("visibility", found ? "visible" : "hidden");
      svg.style.cursor = found && spec.pick ? "pointer" : "";
      if (found) {
        ring.setAttribute("d", `M${found[0] - 7} ${found[1]}a7 7 0 1 0 14 0a7 7 0 1 0 -14 0`);
        spec.hover?.(found[2], found[3], event);
      } else spec.leave?.();
    });
    svg.addEventListener("pointerleave", () => { start = null; ring.setAttribute("visibility", "hidden"); spec.leave?.(); });
    svg.addEventListener("pointerdown", (event) => { if (event.button === 0) start = at(event); if (event.pointerType === "mouse") event.preventDefault(); });
    svg.addEventListener("pointerup", (event) => {
      if (!start) return;
      const [from, to] = [start, at(event)];
      start = null;
      if (Math.hypot(from[0] - to[0], from[1] - to[1]) < 6) {
        const found = nearest(event, 14);
        if (found) { spec.leave?.(); spec.pick?.(found[2], found[3]); }
        return;
      }
      const one = geometry.find((each) => from[1] >= each.top && from[1] <= each.top + each.height);
      if (!spec.zoom || event.pointerType !== "mouse" || !one) return;
      const xs = [from[0], to[0]].sort((a, b) => a - b).map((x) => one.x0 + ((x - one.left) / one.inner) * (one.x1 - one.x0));
      if (Math.abs(to[0] - from[0]) >= 6) view = { ...view, x: xs };
      if (Math.abs(to[1] - from[1]) >= 20 && !one.panel.names) {
        const ys = [from[1], to[1]].sort((a, b) => b - a).map((y) => one.y0 + ((one.top + one.height - y) / one.height) * (one.y1 - one.y0));
        view = { x: [one.x0, one.x1], ...view, y: { ...view.y, [one.panel.key]: ys } };
      }
      redraw();
    });
    svg.addEventListener("dblclick", () => { view = {}; redraw(); });
    let known = 0;
    new ResizeObserver(() => {
      if (place.clientWidth && Math.abs(place.clientWidth - known) > 1) { known = place.clientWidth; redraw(); }
    }).observe(place);
    known = place.clientWidth;
    redraw();
  }
  return { chart, whenSeen };
})();
