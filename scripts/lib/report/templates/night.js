"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const frames = new Map(data.frames.map((one) => [one.frame, one]));
  const stacks = new Map(data.stacks.map((one) => [one.stack, one]));
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
  const openDialog = (id, ...children) => {
    const dialog = document.getElementById(id);
    $(".content", dialog).replaceChildren(...children);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    return dialog;
  };
  for (const dialog of all("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }

  // ------------------------------------------------------------------ colours of filters
  const palette = ["#4c78d8", "#2ca58d", "#e0912f", "#d1495b", "#8a5cc2", "#5f8f3e", "#b85c9e", "#4aa3c7", "#9c755f", "#c2a200"];
  const filters = [...new Set(data.stacks.map((one) => one.filter).concat(data.frames.map((one) => one.filter)))];
  const present = filters.filter((name) => data.frames.some((one) => one.filter === name));
  const colour = (name) => palette[Math.max(0, present.indexOf(name)) % palette.length];

  // ------------------------------------------------------------------ plots
  const base = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: style("--ink") },
    margin: { l: 58, r: 12, t: 28, b: 40 }, hovermode: "closest",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: style("--muted"), activecolor: style("--accent") }, ...more,
  });
  const axis = (more) => ({ gridcolor: style("--line"), zerolinecolor: style("--line"), linecolor: style("--line"), automargin: true, ...more });
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], doubleClick: "reset" };

  const panels = [
    ["fwhm", "seeing [″]", {}],
    ["skymag", "sky [mag/arcsec²]", { autorange: "reversed" }],
    ["sky", "sky [e/s/px]", {}],
    ["transparency", "transparency", { rangemode: "tozero" }],
    ["airmass", "airmass", { autorange: "reversed" }],
    ["offset", "pointing [″]", { rangemode: "tozero" }],
  ];
  function timeline() {
    const place = $("#timeline-plot");
    const target = $("#timeline-target").value;
    const shown = data.frames.filter((one) => !target || one.target === target);
    const known = (key) => shown.some((one) => Number.isFinite(one[key]));
    let rows = panels.filter(([key]) => known(key));
    if (known("skymag") && shown.filter((one) => Number.isFinite(one.skymag)).length * 2 >= shown.length) rows = rows.filter(([key]) => key !== "sky");
    else rows = rows.filter(([key]) => key !== "skymag");
    if (!shown.length) { place.textContent = "No science frame."; return; }
    const strip = Math.min(0.3, 0.05 + 0.022 * present.length);
    const gap = 0.028;
    const height = rows.length ? (1 - strip - gap * rows.length) / rows.length : 0;
    const traces = [];
    const layout = base({
      height: 90 + 24 * present.length + 128 * rows.length, showlegend: present.length > 1,
      legend: { orientation: "h", y: 1.0, yanchor: "bottom", x: 0 },
      margin: { l: narrow() ? 46 : 70, r: 10, t: 34, b: 34 },
      xaxis: axis({ type: "date", anchor: `y${rows.length + 1}`, hoverformat: "%H:%M:%S" }), dragmode: narrow() ? false : "zoom",
    });
    let top = 1;
    rows.concat([["", "", {}]]).forEach(([key, title, more], i) => {
      const name = i ? `y${i + 1}` : "y";
      const size = key ? height : strip;
      layout[i ? `yaxis${i + 1}` : "yaxis"] = axis({
        domain: [Math.max(0, top - size), top], title: { text: title, font: { size: 11 } }, ...more,
        ...(key ? { nticks: 5 } : { dtick: 1, type: "category", categoryarray: [...present].reverse(), range: [-0.6, present.length - 0.4], tickfont: { size: 11 }, fixedrange: true }),
      });
      top -= size + gap;
      for (const filter of present) {
        for (const good of [true, false]) {
          const ones = shown.filter((one) => one.filter === filter && (one.status === "OK") === good && (!key || Number.isFinite(one[key])));
          if (!ones.length) continue;
          traces.push({
            type: shown.length > 2000 ? "scattergl" : "scatter", mode: "markers", x: ones.map((one) => one.time), y: ones.map((one) => (key ? one[key] : filter)),
            customdata: ones.map((one) => one.frame), yaxis: name, name: filter, legendgroup: filter,
            showlegend: key === "" && (good || !shown.some((one) => one.filter === filter && one.status === "OK")), hoverinfo: "none",
            marker: good ? { color: colour(filter), size: 7 } : { color: style("--bad"), symbol: "x", size: 8 },
          });
        }
      }
    });
    place.style.height = `${layout.height + 10}px`;
    Plotly.react(place, traces, layout, { ...options, displayModeBar: narrow() ? false : "hover" });
    if (!place.dataset.ready) {
      place.dataset.ready = "yes";
      place.on("plotly_hover", (event) => tip(event.points[0].customdata, event.event));
      place.on("plotly_unhover", () => { $("#tip").hidden = true; });
      place.on("plotly_click", (event) => { $("#tip").hidden = true; showFrame(event.points[0].customdata); });
    }
  }
  function tip(name, event) {
    const one = frames.get(name);
    const box = $("#tip");
    if (!one || narrow()) return;
    const words = make("div", {}, make("p", {}, make("b", {}, one.frame)), make("p", {}, `${one.target} ${one.filter} ${number(one.exptime, 0, " s")} ${one.time.slice(11, 19)}`));
    const told = [];
    if (Number.isFinite(one.fwhm)) told.push(`seeing ${number(one.fwhm, 2, "″")}`);
    if (Number.isFinite(one.skymag)) told.push(`sky ${number(one.skymag, 2)}`);
    if (Number.isFinite(one.transparency)) told.push(`transparency ${number(one.transparency, 2)}`);
    words.append(make("p", {}, told.join(", ")));
    if (one.reason) words.append(make("p", { class: "bad" }, `${one.step}: ${one.reason}`));
    box.replaceChildren(one.thumb ? make("img", { src: one.thumb, alt: "" }) : "", words);
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.min(event.clientX + 14, window.innerWidth - width - 8)}px`;
    box.style.top = `${Math.max(8, Math.min(event.clientY + 14, window.innerHeight - height - 8))}px`;
  }

  // ------------------------------------------------------------------ a frame's card
  const loading = new Map();
  window.autoprocCard = (name, card) => { data.cards[name] = card; };
  function card(name) {
    if (data.cards[name]) return Promise.resolve(data.cards[name]);
    if (!data.aside) return Promise.resolve(null);
    if (!loading.has(name)) {
      loading.set(name, new Promise((resolve) => {
        const script = make("script", { src: `${data.aside}${encodeURIComponent(name)}.js` });
        script.onload = () => resolve(data.cards[name] || null);
        script.onerror = () => resolve(null);
        document.head.append(script);
      }));
    }
    return loading.get(name);
  }
  const legend = [["#ff5a46", "cosmic ray"], ["#ffd23c", "saturated"], ["#969696", "bad"], ["#505050", "no data"], ["#26466e", "source"], ["#c850dc", "trail"], ["#966e1e", "non-linear"]];
  async function showFrame(name) {
    const one = frames.get(name);
    if (!one) return;
    const at = order.indexOf(name);
    const step = (to) => make("button", { type: "button", ...(order[to] ? {} : { disabled: "" }), onclick: () => showFrame(order[to]) }, to < at ? "‹ earlier" : "later ›");
    const copy = make("button", { type: "button", onclick: () => copyText(excludeLine(name, one.reason), copy) }, "Copy line for exclude.txt");
    const body = make("div", {}, make("p", { class: "muted" }, "Loading …"));
    openDialog("frame-dialog",
      make("h2", {}, name),
      make("p", { class: one.status === "OK" ? "muted" : "bad" }, one.status === "OK" ? (one.used ? `in ${one.used}` : `${one.step || "not begun"}: so far`) : `${one.status.toLowerCase()} by ${one.step}: ${one.words} (${one.reason})`),
      make("div", { class: "tools" }, step(at - 1), step(at + 1), copy), body);
    const more = await card(name);
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
      ["seeing", have("fwhm", 2, "″")], ["ellipticity", have("ellipticity", 2)], ["sky", have("sky", 2, " e/s per pixel")], ["sky", have("skymag", 2, " mag/arcsec²")],
      ["zero point", have("zeropoint", 3)], ["transparency", have("transparency", 3)], ["5σ limit", have("limit", 2)], ["stars", have("nstars", 0)],
      ["residual", have("rms", 1, " mas")], ["pointing offset", have("offset", 1, "″")], ["cosmic rays", have("ncosmic", 0, " px")],
    ]);
    body.replaceChildren(pictures,
      make("div", { class: "key" }, ...legend.map(([shade, word]) => make("span", {}, make("i", { style: `background:${shade}` }), word))),
      make("div", { class: "columns" }, make("div", {}, make("h3", {}, "Frame"), left), make("div", {}, make("h3", {}, "Quality"), right)));
    if (!more) { body.append(make("p", { class: "muted" }, `Pictures and logs of this frame are in ${data.aside} beside this page.`)); return; }
    for (const [name_, text] of Object.entries(more.logs)) {
      body.append(make("details", {}, make("summary", {}, `log of ${name_}`), make("pre", {}, text)));
    }
    if (more.header.length) {
      body.append(make("details", {}, make("summary", {}, "header of the last product"), make("pre", {}, more.header.join("\n"))));
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
      title.textContent = `source ${id}${magnitude === null ? "" : `, ${magnitude.toFixed(2)} mag`}${star ? ", star" : ""}${zero ? ", of the zero point" : ""}`;
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
    const inner = make("div", {}, make("img", { src: one.picture, alt: one.stack }), svg);
    const box = make("div", { class: "viewer" }, inner);
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
      make("button", { type: "button", onclick: () => resize(1.5) }, "+"), make("button", { type: "button", onclick: () => resize(1 / 1.5) }, "−"),
      make("label", {}, marks, " marks"),
      make("span", { class: "muted" }, `${one.sources.length} of ${one.nsources} sources, those above 5σ; orange made the zero point${one.target_xy ? "; cross: target" : ""}. North up, east left.`));
    return make("div", {}, tools, box);
  }
  function showStack(name) {
    const one = stacks.get(name);
    const right = make("div");
    const content = [make("h2", {}, `${one.target} ${one.filter}`)];
    if (one.note) content.push(make("p", { class: "note" }, one.note));
    const zero = Number.isFinite(one.zeropoint);
    const table = facts([
      ["frames", `${one.used} of ${one.frames}`], ["exposure", number(one.exposure, 0, " s")], ["seeing", number(one.seeing, 2, "″")],
      ["zero point", zero ? `${number(one.zeropoint, 4)} ± ${number(one.error, 4)}` : one.zpreason || "none"],
      ["zero-point stars", zero ? `${one.zpstars} stars of ${one.zpsource}, scatter ${number(one.scatter, 3)}` : ""],
      ["colour term", one.colour ? `${number(one.colour_term, 3)} ± ${number(one.colour_error, 3)} (${one.colour})` : ""],
      ["5σ limit", number(one.limit, 2)], ["positions", one.catalogue === "NONE" ? "aligned with each other only" : `${number(one.positions, 1, " mas")} rms, ${one.starsused ?? "–"} stars of ${one.catalogue}`],
      ["size", one.size[0] ? `${one.size[0]} × ${one.size[1]} px of ${number(one.scale, 3, "″")}` : ""],
    ]);
    right.append(table);
    const plots = [];
    const plot = (title, traces, layout) => {
      const place = make("div", { class: "plot" });
      right.append(make("h3", {}, title), place);
      plots.push(() => Plotly.newPlot(place, traces, base({ margin: { l: 52, r: 8, t: 8, b: 40 }, showlegend: false, ...layout }), { ...options, displayModeBar: false }));
    };
    if (one.zp.length && zero) {
      const part = (used, shade, label) => {
        const rows = one.zp.filter((row) => Boolean(row[2]) === used);
        return { type: "scatter", mode: "markers", x: rows.map((row) => row[0]), y: rows.map((row) => row[1]), name: label, marker: { color: shade, size: used ? 5 : 4, opacity: used ? 0.9 : 0.45 }, hovertemplate: "%{x:.2f} mag, off by %{y:.3f}<extra>" + label + "</extra>" };
      };
      const span = Math.max(0.1, 5 * (one.scatter || 0.05));
      plot("Zero point: reference − coadd", [part(false, style("--muted"), "not used"), part(true, "#e0912f", "used")], {
        xaxis: axis({ title: { text: "reference magnitude" } }), yaxis: axis({ title: { text: "mag" }, range: [-span, span] }),
        shapes: [{ type: "rect", xref: "paper", x0: 0, x1: 1, y0: -(one.error || 0), y1: one.error || 0, fillcolor: "#e0912f", opacity: 0.25, line: { width: 0 } }],
      });
    }
    if (one.positions_xy.length && one.catalogue !== "NONE") {
      const rows = one.positions_xy;
      const lengths = rows.map((row) => Math.hypot(row[2], row[3])).sort((a, b) => a - b);
      const typical = lengths[Math.floor(lengths.length / 2)] || 1;
      const scale = Math.max(...one.size) / 25 / typical;
      const lines = { type: "scatter", mode: "lines", x: [], y: [], line: { color: style("--accent"), width: 1.2 }, hoverinfo: "skip" };
      for (const [x, y, east, north] of rows) {
        const cut = Math.min(1, (6 * typical) / Math.max(1e-9, Math.hypot(east, north)));
        lines.x.push(x, x - east * scale * cut, null); lines.y.push(y, y + north * scale * cut, null);
      }
      const dots = { type: "scatter", mode: "markers", x: rows.map((row) => row[0]), y: rows.map((row) => row[1]), marker: { size: 4, color: style("--accent") }, customdata: rows.map((row) => [row[2], row[3]]), hovertemplate: "east %{customdata[0]:.0f}, north %{customdata[1]:.0f} mas<extra></extra>" };
      plot(`Residuals of positions (median ${number(typical, 0, " mas")})`, [lines, dots], { xaxis: axis({ range: [0, one.size[0]], showgrid: false }), yaxis: axis({ range: [0, one.size[1]], scaleanchor: "x", showgrid: false }) });
    }
    if (one.weight) right.append(make("h3", {}, "Weight map"), make("img", { src: one.weight, alt: "weight map", style: "width:100%;max-width:320px" }));
    const strip = make("div", { class: "strip" });
    for (const member of one.members) {
      const frame = frames.get(member.frame);
      strip.append(make("button", { type: "button", class: member.used ? "" : "out", title: member.used ? member.frame : `${member.frame}: ${member.why || "not stacked"}`, "aria-label": member.frame, onclick: () => showFrame(member.frame) },
        frame && frame.thumb ? make("img", { src: frame.thumb, alt: "", loading: "lazy" }) : ""));
    }
    const picture = one.picture ? viewer(one) : make("p", { class: "muted" }, "No picture: the stack was not made.");
    content.push(make("div", { class: "two" }, make("div", {}, picture, make("h3", {}, `Frames (${one.members.length})`), strip), right));
    openDialog("stack-dialog", ...content);
    plots.forEach((draw) => draw());
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
    quality: ["frame", "target", "filter", "exptime", "date_obs", "status", "reason", "fwhm", "ellipticity", "skymag", "sky", "zeropoint", "transparency", "limit", "nstars", "rms", "offset", "airmass", "ncosmic"],
    log: ["frame", "raw", "type", "target", "filter", "camera", "exptime", "date_obs", "status", "step", "reason", "used"],
  };
  async function frameTable() {
    const library = await import(`data:text/javascript;base64,${$("#tables-library").textContent.trim()}`);
    const DataTable = library.default;
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
        render: (value, type) => (type === "display" ? escape(value) : value),
      })),
      createdRow: (row, values) => {
        row.classList.add(String(values[at("status")]).toLowerCase());
        row.addEventListener("click", () => showFrame(values[at("frame")]));
      },
    });
    const show = (view) => {
      keys.forEach((key, i) => table.column(i).visible(views[view].includes(key) && !(empty.has(key) && view === "quality"), false));
      if (view === "quality" && !selects.type.value && data.frames.length) { selects.type.value = "object"; choose("type"); }
      if (view === "log" && selects.type.value === "object") { selects.type.value = ""; choose("type"); }
      table.columns.adjust().draw(false);
      for (const button of all("[data-view]")) button.classList.toggle("on", button.dataset.view === view);
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

  // ------------------------------------------------------------------ wiring
  for (const tile of all("[data-stack] .picture")) tile.addEventListener("click", () => showStack(tile.parentElement.dataset.stack));
  for (const tile of all("[data-composite] .picture")) {
    tile.addEventListener("click", () => openDialog("picture-dialog", make("h2", {}, tile.parentElement.dataset.composite), make("img", { src: $("img", tile).src, alt: "", class: "whole" })));
  }
  for (const button of all("button[data-frame]")) button.addEventListener("click", () => showFrame(button.dataset.frame));
  $("#timeline-target").addEventListener("change", timeline);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", timeline);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", dark);
  timeline();
  frameTable();
})();
