"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const frames = new Map(data.frames.map((one) => [one.frame, one]));
  const stacks = new Map(data.stacks.map((one) => [one.stack, one]));
  const targets = new Map(data.targets.map((one) => [one.name, one]));
  const order = data.frames.map((one) => one.frame);
  const $ = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const narrow = () => window.innerWidth < 760;

  // Builds an element; texts become text nodes, never HTML: they come from headers.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  function facts(pairs) {
    const list = make("dl", { class: "facts" });
    for (const [name, value] of pairs) {
      if (value === null || value === undefined || value === "") continue;
      list.append(make("dt", {}, name), make("dd", {}, String(value)));
    }
    return list;
  }
  const number = (value, digits, unit = "") => (Number.isFinite(value) ? value.toFixed(digits) + unit : "–");
  const links = (list) => make("p", { class: "files" }, ...list.flatMap((one) => [make("a", { href: one.href }, one.what), " "]));

  // Text that the page holds packed is unpacked when it is needed.
  async function unpack(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  // ------------------------------------------------------------------ addresses of parts
  // #stack=…, #frame=…, #picture=… open a dialog, #target=… is a place on the page.
  const openers = { stack: (name) => showStack(name), frame: (name) => showFrame(name), picture: (name) => showComposite(name) };
  const address = (kind, name) => `#${kind}=${encodeURIComponent(name)}`;
  const setAddress = (hash) => { if (location.hash !== hash) history.replaceState(null, "", hash || location.pathname + location.search); };
  function follow() {
    const [kind, name] = [location.hash.slice(1).split("=")[0], location.hash.slice(1).split("=").slice(1).join("=")];
    if (!name) return;
    let plain = name;
    try { plain = decodeURIComponent(name); } catch { /* as it is */ }
    if (kind in openers) openers[kind](plain);
    else if (kind === "target") document.getElementById(`target=${plain}`)?.scrollIntoView();
  }
  const openDialog = (id, hash, label, ...children) => {
    const dialog = document.getElementById(id);
    $(".content", dialog).replaceChildren(...children);
    dialog.setAttribute("aria-label", label);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    dialog.dataset.address = hash;
    setAddress(hash);
    return dialog;
  };
  for (const dialog of all("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => {
      const below = all("dialog[open]").pop();
      setAddress(below ? below.dataset.address : "");
    });
  }

  // ------------------------------------------------------------------ colours of filters
  const palette = ["#4c78d8", "#2ca58d", "#e0912f", "#d1495b", "#8a5cc2", "#5f8f3e", "#b85c9e", "#4aa3c7", "#9c755f", "#c2a200"];
  const filters = [...new Set(data.stacks.map((one) => one.filter).concat(data.frames.map((one) => one.filter)))];
  const present = filters.filter((name) => data.frames.some((one) => one.filter === name));
  const colour = (name) => palette[Math.max(0, present.indexOf(name)) % palette.length];

  // ------------------------------------------------------------------ plots
  let drawn = 0;
  const plot = (place, spec) => charts.chart(place, { id: (drawn += 1), leave: hideTip, ...spec });
  const hideTip = () => { $("#tip").hidden = true; };
  const time = (text) => Date.parse(/Z$/.test(text) ? text : `${text}Z`);
  const day = (from, to) => {
    const [one, other] = [from, to].map((value) => new Date(value).toISOString().slice(0, 10));
    return one === other ? one : `${one} to ${other}`;
  };

  const panels = [
    ["fwhm", "seeing [″]", {}],
    ["skymag", "sky [mag/arcsec²]", { reverse: true }],
    ["sky", "sky [e⁻/s/px]", {}],
    ["transparency", "transparency", { zero: true }],
    ["airmass", "airmass", { reverse: true }],
    ["offset", "pointing [″]", { zero: true }],
  ];
  function timeline() {
    const place = $("#timeline-plot");
    const target = $("#timeline-target").value;
    const shown = data.frames.filter((one) => (!target || one.target === target) && Number.isFinite(time(one.time)));
    const known = (key) => shown.some((one) => Number.isFinite(one[key]));
    let rows = panels.filter(([key]) => known(key));
    if (known("skymag") && shown.filter((one) => Number.isFinite(one.skymag)).length * 2 >= shown.length) rows = rows.filter(([key]) => key !== "sky");
    else rows = rows.filter(([key]) => key !== "skymag");
    if (!shown.length) { place.textContent = "No science frame."; return; }
    const times = shown.map((one) => time(one.time));
    const traces = [];
    for (const [key] of [["", "", {}], ...rows]) {
      for (const filter of present) {
        for (const good of [true, false]) {
          const ones = shown.filter((one) => one.filter === filter && (one.status === "OK") === good && (!key || Number.isFinite(one[key])));
          if (!ones.length) continue;
          traces.push({
            panel: key || "filter", group: filter, colour: good ? colour(filter) : "var(--bad)", mark: good ? "dot" : "cross",
            x: ones.map((one) => time(one.time)), y: ones.map((one) => (key ? one[key] : present.indexOf(filter))), names: ones.map((one) => one.frame),
          });
        }
      }
    }
    plot(place, {
      label: "seeing, sky, transparency, airmass and pointing of the frames against time; the values are in the table of frames",
      time: true, legend: true, zoom: true, save: "timeline", traces,
      xTitle: `start of the exposure, UTC, ${day(Math.min(...times), Math.max(...times))}`,
      panels: [...rows.map(([key, title, more]) => ({ key, title, ...more })), { key: "filter", title: "", names: present }],
      hover: (trace, i, event) => tip(trace.names[i], event), pick: (trace, i) => showFrame(trace.names[i]),
    });
  }

  // ------------------------------------------------------------------ light curves
  function lightCurve(place, one) {
    if (!one.curve.length) { place.replaceChildren(make("p", { class: "muted" }, "No light curve: the target was not measured in single frames.")); return; }
    const calibrated = one.curve.some((point) => point[3] !== null || point[5] !== null);
    const names = [...new Set(one.curve.map((point) => point[1]))];
    names.sort((a, b) => filters.indexOf(a) - filters.indexOf(b));
    const times = one.curve.map((point) => point[2]);
    const systems = [...new Set(names.map((name) => one.systems[name]).filter(Boolean))];
    const mixed = systems.length > 1;
    const traces = [];
    for (const filter of names) {
      const own = one.curve.filter((point) => point[1] === filter);
      const binned = own.some((point) => point[10] > 1);
      const label = mixed && one.systems[filter] ? `${filter} (${one.systems[filter]})` : filter;
      const trace = (points, mark, value, error = null, faint = false) => {
        if (points.length) traces.push({ faint, size: faint ? 4.5 : 7, panel: "curve", group: label, colour: colour(filter), mark, x: points.map((point) => point[2]), y: points.map((point) => point[value]), error: error ? points.map((point) => point[error]) : null, points });
      };
      if (calibrated) {
        // Bins stand out; the frames in them step back.
        trace(own.filter((point) => point[3] !== null && point[10] === 1), "dot", 3, 4, binned);
        trace(own.filter((point) => point[5] !== null && point[10] === 1), "limit", 5, null, binned);
        trace(own.filter((point) => point[3] !== null && point[10] > 1), "square", 3, 4);
        trace(own.filter((point) => point[5] !== null && point[10] > 1), "limit", 5);
      } else {
        trace(own.filter((point) => point[6] !== null && point[10] === 1), "dot", 6, 7, binned);
        trace(own.filter((point) => point[6] !== null && point[10] > 1), "square", 6, 7);
      }
    }
    const unit = systems.length === 1 ? ` [${systems[0]}]` : "";
    const lost = one.curve.filter((point) => point[10] === 1 && point[3] === null && point[5] === null && point[6] === null);
    const single = one.curve.filter((point) => point[10] === 1).length;
    const value = (point) => {
      const system = one.systems[point[1]] || "";
      if (point[3] !== null) return `${number(point[3], 3)} ± ${number(point[4], 3)} ${system}`;
      if (point[5] !== null) return `> ${number(point[5], 2)} ${system} (${data.sigma}σ)`;
      if (point[6] !== null) return `${number(point[6], 2)} ± ${number(point[7], 2)} e⁻/s, no zero point`;
      return "not measured";
    };
    const clock = (point) => new Date(point[2]).toISOString().slice(0, 19).replace("T", " ");
    const chart = make("div");
    const table = make("table", { class: "plain" },
      make("thead", {}, make("tr", {}, ...["middle (UTC)", "filter", "magnitude", "frame", ""].map((word) => make("th", { scope: "col" }, word)))),
      make("tbody", {}, ...one.curve.map((point) => make("tr", {}, make("td", {}, clock(point)), make("td", {}, point[1]), make("td", {}, value(point)),
        make("td", {}, point[10] > 1 ? `${point[10]} frames` : frames.has(point[0]) ? make("a", { href: address("frame", point[0]) }, point[0]) : point[0]), make("td", { class: "muted" }, point[9] || (point[8] ? "" : "not in the stack"))))));
    place.replaceChildren(chart, make("details", {},
      make("summary", {}, `values of ${single} frame${single > 1 ? "s" : ""}${single < one.curve.length ? `, ${one.curve.length - single} bin${one.curve.length - single > 1 ? "s" : ""} of frames` : ""}${lost.length ? `; ${lost.length} without a measurement` : ""}`),
      make("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": `light curve of ${one.name}` }, table)));
    if (!traces.length) { chart.append(make("p", { class: "muted" }, `No light curve: ${lost[0]?.[9] || "the target was not measured"}.`)); return; }
    plot(chart, {
      label: `light curve of ${one.name}; its values are in the table below it`, time: true, legend: true, zoom: true, save: `${one.name}.lightcurve`, traces,
      xTitle: `middle of the exposure, UTC, ${day(Math.min(...times), Math.max(...times))}`,
      panels: [{ key: "curve", title: calibrated ? `magnitude${unit}` : "flux [e⁻/s], no zero point", reverse: calibrated, height: 280, least: calibrated ? 0.05 : 0 }],
      hover: (trace, i, event) => showTip(event, "", [trace.points[i][10] > 1 ? `${trace.points[i][10]} frames` : trace.points[i][0]], `${trace.points[i][1]} ${value(trace.points[i])}`, clock(trace.points[i])),
      pick: (trace, i) => { if (trace.points[i][10] === 1) showFrame(trace.points[i][0]); },
    });
  }
  for (const place of all("[data-curve]")) charts.whenSeen(place, () => lightCurve(place, targets.get(place.dataset.curve)));

  function tip(name, event) {
    const one = frames.get(name);
    if (!one) return;
    const told = [];
    if (Number.isFinite(one.fwhm)) told.push(`seeing ${number(one.fwhm, 2, "″")}`);
    if (Number.isFinite(one.skymag)) told.push(`sky ${number(one.skymag, 2)} ${system(one)}`);
    if (Number.isFinite(one.transparency)) told.push(`transparency ${number(one.transparency, 2)}`);
    if (Number.isFinite(one.airmass)) told.push(`airmass ${number(one.airmass, 2)}`);
    showTip(event, one.thumb, [one.frame, one.reason && `${one.step}: ${one.reason}`], `${one.target} ${one.filter} ${number(one.exptime, 0, " s")} ${one.time.slice(11, 19)}`, told.join(", "));
  }
  function showTip(event, picture, [name, why], ...lines) {
    if (narrow()) return;
    const box = $("#tip");
    const words = make("div", {}, make("p", {}, make("b", {}, name)), ...lines.map((line) => make("p", {}, line)));
    if (why) words.append(make("p", { class: "bad" }, why));
    box.replaceChildren(picture ? make("img", { src: picture, alt: "" }) : "", words);
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.min(event.clientX + 14, window.innerWidth - width - 8)}px`;
    box.style.top = `${Math.max(8, Math.min(event.clientY + 14, window.innerHeight - height - 8))}px`;
  }

  // ------------------------------------------------------------------ a frame's card
  const loading = new Map();
  let cards = null;
  window.autoprocCard = (name, card) => { cards[name] = card; };
  async function card(name) {
    cards ??= JSON.parse(await unpack("cards"));
    if (cards[name] || !data.aside) return cards[name] || null;
    if (!loading.has(name)) {
      loading.set(name, new Promise((resolve) => {
        const script = make("script", { src: `${data.aside}${encodeURIComponent(name)}.js` });
        script.onload = () => resolve(cards[name] || null);
        script.onerror = () => resolve(null);
        document.head.append(script);
      }));
    }
    return loading.get(name);
  }
  const system = (one) => data.stacks.find((each) => each.target === one.target && each.filter === one.filter)?.system || "";
  const legend = [["#ff5a46", "cosmic ray"], ["#ffd23c", "saturated"], ["#969696", "bad"], ["#505050", "no data"], ["#26466e", "source"], ["#c850dc", "trail"], ["#966e1e", "non-linear"]];
  async function showFrame(name) {
    const one = frames.get(name);
    if (!one) return;
    const at = order.indexOf(name);
    const step = (to) => make("button", { type: "button", ...(order[to] ? {} : { disabled: "" }), onclick: () => showFrame(order[to]) }, to < at ? "‹ earlier" : "later ›");
    const copy = make("button", { type: "button", onclick: () => copyText(excludeLine(name, one.reason), copy) }, "Copy line for exclude.txt");
    const body = make("div", {}, make("p", { class: "muted" }, "Loading …"));
    const files = one.files.map((prefix) => ({ what: `${prefix}${name}.fits`, href: `${encodeURIComponent(`${prefix}${name}`)}.fits` }));
    openDialog("frame-dialog", address("frame", name), `frame ${name}`,
      make("h2", {}, name),
      make("p", { class: one.status === "OK" ? "muted" : "bad" }, one.status === "OK" ? (one.used ? `in ${one.used}` : `${one.step || "not begun"}: so far`) : `${one.status.toLowerCase()} by ${one.step}: ${one.words} (${one.reason})`),
      make("div", { class: "tools" }, step(at - 1), step(at + 1), copy), files.length ? links(files) : "", body);
    const more = await card(name);
    if (!body.isConnected) return;
    const pictures = make("div", { class: "pictures" });
    for (const picture of (more && more.pictures) || []) {
      pictures.append(make("figure", {}, picture.src ? make("img", { src: picture.src, alt: picture.title }) : make("p", { class: "bad" }, picture.why), make("figcaption", {}, picture.title)));
    }
    if (!pictures.children.length) pictures.append(make("p", { class: "muted" }, "No picture: no file with pixels is left of this frame."));
    const left = facts([
      ["raw file", one.raw], ["target", one.target], ["filter", one.filter], ["camera", one.camera], ["start (UTC)", one.time.replace("T", " ")],
      ["exposure", number(one.exptime, 2, " s")], ["airmass", Number.isFinite(one.airmass) ? number(one.airmass, 3) : ""],
      ["bias", one.calibrations.bias], ["dark", one.calibrations.dark], ["flat", one.calibrations.flat], ["sky", one.calibrations.sky],
    ]);
    const have = (key, digits, unit) => (Number.isFinite(one[key]) ? number(one[key], digits, unit) : "");
    const right = facts([
      ["seeing", have("fwhm", 2, "″")], ["ellipticity", have("ellipticity", 2)], ["sky", have("sky", 2, " e⁻/s per pixel")], ["sky", have("skymag", 2, ` mag/arcsec² (${system(one)})`)],
      ["zero point", Number.isFinite(one.zeropoint) ? `${number(one.zeropoint, 3)} ${system(one)}` : ""], ["transparency", have("transparency", 3)], ["5σ limit", Number.isFinite(one.limit) ? `${number(one.limit, 2)} ${system(one)}` : Number.isFinite(one.fwhm) ? "none: no zero point" : ""], ["stars", have("nstars", 0)],
      ["residual", have("rms", 1, " mas")], ["pointing offset", have("offset", 1, "″")], ["cosmic rays", have("ncosmic", 0, " px")],
    ]);
    body.replaceChildren(pictures,
      make("div", { class: "key" }, ...legend.map(([shade, word]) => make("span", {}, make("i", { style: `background:${shade}` }), word))),
      make("div", { class: "columns" }, make("div", {}, make("h3", {}, "Frame"), left), make("div", {}, make("h3", {}, "Quality"), right)));
    if (!more) { body.append(make("p", { class: "muted" }, `Pictures and logs of this frame are in ${data.aside} beside this page.`)); return; }
    for (const [name_, text] of Object.entries(more.logs)) {
      body.append(make("details", {}, make("summary", {}, `log of ${name_}`), make("pre", { tabindex: "0" }, text)));
    }
    if (more.header.length) {
      body.append(make("details", {}, make("summary", {}, "header of the last product"), make("pre", { tabindex: "0" }, more.header.join("\n"))));
    }
  }

  // ------------------------------------------------------------------ a stack
  const svgns = "http://www.w3.org/2000/svg";
  function viewer(one) {
    const svg = document.createElementNS(svgns, "svg");
    svg.setAttribute("viewBox", `0 0 ${one.size[0]} ${one.size[1]}`);
    svg.setAttribute("preserveAspectRatio", "none");
    const radius = Math.max(...one.size) / 110;
    for (const [x, y, magnitude, star, zero, id] of one.sources) {
      const circle = document.createElementNS(svgns, "circle");
      circle.setAttribute("cx", x * one.size[0]); circle.setAttribute("cy", y * one.size[1]); circle.setAttribute("r", radius);
      circle.setAttribute("class", zero ? "zero" : "source");
      const title = document.createElementNS(svgns, "title");
      title.textContent = `source ${id}${magnitude === null ? "" : `, ${magnitude.toFixed(2)} mag ${one.system}`}${star ? ", star" : ""}${zero ? ", of the zero point" : ""}`;
      circle.append(title);
      svg.append(circle);
    }
    if (one.target_xy) {
      const [x, y] = [one.target_xy[0] * one.size[0], one.target_xy[1] * one.size[1]];
      const r = radius * 1.6;
      const path = document.createElementNS(svgns, "path");
      path.setAttribute("d", `M${x - 2.5 * r} ${y}h${1.5 * r}M${x + r} ${y}h${1.5 * r}M${x} ${y - 2.5 * r}v${1.5 * r}M${x} ${y + r}v${1.5 * r}`);
      const title = document.createElementNS(svgns, "title");
      title.textContent = "where the telescope was sent";
      path.append(title);
      svg.append(path);
    }
    const inner = make("div", {}, make("img", { src: one.picture, alt: `picture of ${one.stack}` }), svg);
    const box = make("div", { class: "viewer", tabindex: "0", role: "region", "aria-label": `picture of ${one.stack}` }, inner);
    let zoom = 1;
    const resize = (by) => {
      const fx = (box.scrollLeft + box.clientWidth / 2) / box.scrollWidth, fy = (box.scrollTop + box.clientHeight / 2) / box.scrollHeight;
      zoom = Math.min(4, Math.max(1, zoom * by));
      inner.style.width = `${100 * zoom}%`;
      box.scrollLeft = fx * box.scrollWidth - box.clientWidth / 2;
      box.scrollTop = fy * box.scrollHeight - box.clientHeight / 2;
    };
    const marks = make("input", { type: "checkbox", checked: "" });
    marks.addEventListener("change", () => { svg.style.display = marks.checked ? "" : "none"; });
    const tools = make("div", { class: "tools" },
      make("button", { type: "button", "aria-label": "larger", onclick: () => resize(1.5) }, "+"), make("button", { type: "button", "aria-label": "smaller", onclick: () => resize(1 / 1.5) }, "−"),
      make("label", {}, marks, " marks"),
      make("span", { class: "muted" }, `${one.sources.length} of ${one.nsources} sources, those above 5σ; orange made the zero point${one.target_xy ? "; cross: target" : ""}. North up, east left.`));
    return make("div", {}, tools, box);
  }
  function showStack(name) {
    const one = stacks.get(name);
    if (!one) return;
    const right = make("div");
    const content = [make("h2", {}, `${one.target} ${one.filter}`)];
    if (one.links.length) content.push(links(one.links));
    if (one.note) content.push(make("p", { class: "note" }, one.note));
    const zero = Number.isFinite(one.zeropoint);
    const table = facts([
      ["frames", `${one.used} of ${one.frames}`], ["exposure", number(one.exposure, 0, " s")], ["seeing", number(one.seeing, 2, "″")],
      ["zero point", zero ? `${number(one.zeropoint, 4)} ± ${number(one.error, 4)} ${one.system}` : `none: ${one.zpreason}`],
      ["zero-point stars", zero ? `${one.zpstars} stars of ${one.zpsource}, scatter ${number(one.scatter, 3)}` : ""],
      ["colour term", one.colour ? `${number(one.colour_term, 3)} ± ${number(one.colour_error, 3)} (${one.colour})` : ""],
      ["5σ limit", Number.isFinite(one.limit) ? `${number(one.limit, 2)} ${one.system}` : zero ? "not measured" : "none without a zero point"], ["positions", one.catalogue === "NONE" ? "aligned with each other only" : `${number(one.positions, 1, " mas")} rms, ${one.starsused ?? "–"} stars of ${one.catalogue}`],
      ["size", one.size[0] ? `${one.size[0]} × ${one.size[1]} px of ${number(one.scale, 3, "″")}` : ""],
    ]);
    right.append(table);
    const plots = [];
    const below = (title, spec) => {
      const place = make("div", { class: "plot" });
      right.append(make("h3", {}, title), place);
      plots.push(() => plot(place, spec));
    };
    if (one.zp.length && zero) {
      const part = (used, shade, label) => {
        const rows = one.zp.filter((row) => Boolean(row[2]) === used);
        return { panel: "zp", group: label, mark: "dot", size: used ? 5.5 : 4.5, faint: !used, colour: shade, x: rows.map((row) => row[0]), y: rows.map((row) => row[1]) };
      };
      const span = Math.max(0.1, 5 * (one.scatter || 0.05));
      below("Zero point: reference − coadd", {
        label: "reference magnitude less that of the coadd, against magnitude", legend: true, zoom: true, xTitle: `reference magnitude [${one.system}]`,
        traces: [part(false, "var(--muted)", "not used"), part(true, "#e0912f", "used")],
        panels: [{ key: "zp", title: "difference [mag]", range: [-span, span], height: 230, bands: [[-(one.error || 0), one.error || 0, "#e0912f"]] }],
        hover: (trace, i, event) => showTip(event, "", [trace.group], `${number(trace.x[i], 2)} ${one.system}, off by ${number(trace.y[i], 3)} mag`),
      });
    }
    if (one.positions_xy.length && one.catalogue !== "NONE") {
      const rows = one.positions_xy;
      const lengths = rows.map((row) => Math.hypot(row[2], row[3])).sort((a, b) => a - b);
      const typical = lengths[Math.floor(lengths.length / 2)] || 1;
      const scale = Math.max(...one.size) / 25 / typical;
      const round = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((each) => each >= 1.5 * typical) || 1e4;
      const to = ([x, y, east, north]) => {
        const cut = Math.min(1, (6 * typical) / Math.max(1e-9, Math.hypot(east, north)));
        return [x - east * scale * cut, y + north * scale * cut];
      };
      const at = { panel: "xy", group: "", colour: "var(--accent)", x: rows.map((row) => row[0]), y: rows.map((row) => row[1]) };
      below(`Residuals of positions (median ${number(typical, 0, " mas")})`, {
        label: "residuals of the positions of stars over the field, as arrows", xTitle: "x [pixel]", xRange: [0, one.size[0]],
        traces: [{ ...at, mark: "dot", to: rows.map(to) }, { ...at, mark: "dot", size: 4.5 }],
        panels: [{ key: "xy", title: "y [pixel]", range: [0, one.size[1]], equal: true, bare: true, scale: { length: round * scale, label: `${round} mas` } }],
        hover: (trace, i, event) => showTip(event, "", ["star"], `${number(rows[i][2], 0)} mas east, ${number(rows[i][3], 0)} mas north`),
      });
    }
    if (one.weight) right.append(make("h3", {}, "Weight map"), make("img", { src: one.weight, alt: `weight map of ${one.stack}, white where the coadd is deepest`, style: "width:100%;max-width:320px" }));
    const strip = make("div", { class: "strip" });
    for (const member of one.members) {
      const frame = frames.get(member.frame);
      strip.append(make("button", { type: "button", class: member.used ? "" : "out", title: member.used ? member.frame : `${member.frame}: ${member.why || "not stacked"}`, "aria-label": member.frame, onclick: () => showFrame(member.frame) },
        frame && frame.thumb ? make("img", { src: frame.thumb, alt: "", loading: "lazy" }) : ""));
    }
    const picture = one.picture ? viewer(one) : make("p", { class: "muted" }, "No picture: the stack was not made.");
    content.push(make("div", { class: "two" }, make("div", {}, picture, make("h3", {}, `Frames (${one.members.length})`), strip), right));
    openDialog("stack-dialog", address("stack", name), `stack ${name}`, ...content);
    plots.forEach((draw) => draw());
  }

  function showComposite(name) {
    const picture = all("[data-composite]").find((each) => each.dataset.composite === name);
    if (picture) openDialog("picture-dialog", address("picture", name), `colour picture of ${name}`, make("h2", {}, name), make("p", { class: "muted" }, $(".words .muted", picture).textContent), make("img", { src: $("img", picture).src, alt: `colour picture of ${name}`, class: "whole" }));
  }

  // ------------------------------------------------------------------ copying
  function excludeLine(name, why) {
    // In quotes a name is a name: no pattern, no comment. A quote in it is written as a shell has it.
    const odd = /[\s*?'"#\\[]/.test(name);
    const quoted = odd ? `'${name.replace(/'/g, `'"'"'`)}'` : name;
    return `${quoted}   ${(why || "by eye").replace(/\s+/g, " ")}`;
  }
  async function copyText(text, button) {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", { style: "position:fixed;opacity:0" });
      area.value = text;
      ($("dialog[open]") || document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1500);
  }
  for (const button of all("[data-copy]")) button.addEventListener("click", () => copyText(button.dataset.copy, button));
  const copyButton = $("#copy-exclude");
  if (copyButton) {
    const boxes = all("#left-table input[type=checkbox]");
    $("#check-all").addEventListener("change", (event) => { for (const box of boxes) box.checked = event.target.checked; });
    copyButton.addEventListener("click", () => {
      const chosen = boxes.filter((box) => box.checked);
      if (!chosen.length) { $("#copied").textContent = "Tick the frames first."; return; }
      $("#copied").textContent = `${chosen.length} line${chosen.length > 1 ? "s" : ""} for ${data.exclude}`;
      copyText(chosen.map((box) => excludeLine(box.dataset.name, box.dataset.why)).join("\n"), copyButton);
    });
  }

  // ------------------------------------------------------------------ the table of frames
  const views = {
    quality: ["frame", "target", "filter", "exptime", "date_obs", "status", "reason", "fwhm", "ellipticity", "skymag", "sky", "zeropoint", "transparency", "limit", "system", "nstars", "rms", "offset", "airmass", "ncosmic"],
    log: ["frame", "raw", "type", "target", "filter", "camera", "exptime", "date_obs", "status", "step", "reason", "used"],
  };
  async function frameTable() {
    const [script, sheet] = await Promise.all([unpack("tables-library"), unpack("tables-style")]);
    document.head.insertBefore(make("style", {}, sheet), $("style"));
    const source = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    const DataTable = (await import(source)).default;
    URL.revokeObjectURL(source);
    const keys = data.columns.map((one) => one.key);
    const at = (key) => keys.indexOf(key);
    const empty = new Set(keys.filter((key, i) => data.rows.every((row) => row[i] === "" || row[i] === null)));
    const text = DataTable.render.text().display;
    const escape = (value) => (typeof value === "string" ? text(value) : value);
    const table = new DataTable("#frame-table", {
      data: data.rows, deferRender: true, pageLength: 25, lengthMenu: [10, 25, 100, 500], order: [],
      autoWidth: false, orderClasses: false, language: { search: "search", lengthMenu: "_MENU_ per page", emptyTable: "no raw file" },
      columns: data.columns.map((one) => ({
        title: text(one.title), className: one.key === "reason" ? "reason" : "",
        render: (value, type) => {
          if (type !== "display") return value;
          if (typeof value === "number" && one.digits !== null) return value.toFixed(one.digits);
          // A link, so that the keyboard reaches it.
          return one.key === "frame" && frames.has(value) ? `<a href="${text(address("frame", value))}">${escape(value)}</a>` : escape(value);
        },
      })),
      createdRow: (row, values) => {
        row.classList.add(String(values[at("status")]).toLowerCase());
        row.addEventListener("click", (event) => { if (!event.target.closest("a")) showFrame(values[at("frame")]); });
      },
    });
    const show = (view) => {
      keys.forEach((key, i) => table.column(i).visible(views[view].includes(key) && !(empty.has(key) && view === "quality"), false));
      if (view === "quality" && !selects.type.value && data.frames.length) { selects.type.value = "object"; choose("type"); }
      if (view === "log" && selects.type.value === "object") { selects.type.value = ""; choose("type"); }
      table.columns.adjust().draw(false);
      for (const button of all("[data-view]")) {
        button.classList.toggle("on", button.dataset.view === view);
        button.setAttribute("aria-pressed", String(button.dataset.view === view));
      }
    };
    const selects = {};
    const choose = (key) => {
      const value = selects[key].value;
      const wanted = value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      table.column(at(key)).search(value ? `^${wanted}$` : "", true, false).draw();
    };
    for (const select of all("#frame-tools select")) {
      const key = select.dataset.column;
      selects[key] = select;
      const values = [...new Set(data.rows.map((row) => row[at(key)]))].filter((value) => value !== "").sort();
      select.append(make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, value)));
      select.addEventListener("change", () => choose(key));
    }
    for (const button of all("[data-view]")) button.addEventListener("click", () => show(button.dataset.view));
    show("quality");
    document.body.dataset.table = "ready";
  }

  // On paper the whole table: every row, only columns that hold something.
  function printedTable() {
    const keys = data.columns.map((one) => one.key);
    const wanted = views.quality.map((key) => keys.indexOf(key)).filter((i) => data.rows.some((row) => row[i] !== "" && row[i] !== null));
    const rows = data.rows.filter((row) => frames.has(row[0]) || !["OK"].includes(row[keys.indexOf("status")]));
    $("#frame-print").replaceChildren(make("table", { class: "plain" },
      make("thead", {}, make("tr", {}, ...wanted.map((i) => make("th", {}, data.columns[i].title)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...wanted.map((i) => make("td", {}, typeof row[i] === "number" ? row[i].toFixed(data.columns[i].digits ?? 0) : String(row[i] ?? ""))))))));
  }
  window.addEventListener("beforeprint", printedTable);
  window.addEventListener("afterprint", () => $("#frame-print").replaceChildren());

  // ------------------------------------------------------------------ wiring
  for (const tile of all("[data-stack] .picture")) tile.addEventListener("click", () => showStack(tile.parentElement.dataset.stack));
  for (const tile of all("[data-composite] .picture")) tile.addEventListener("click", () => showComposite(tile.parentElement.dataset.composite));
  for (const button of all("button[data-frame]")) button.addEventListener("click", () => showFrame(button.dataset.frame));
  document.documentElement.classList.toggle("dark", matchMedia("(prefers-color-scheme: dark)").matches);
  const place = $("#timeline-plot");
  $("#timeline-target").addEventListener("change", timeline);
  charts.whenSeen(place, timeline);
  charts.whenSeen($("#frame-scroll"), frameTable);
  window.addEventListener("hashchange", follow);
  follow();
})();
