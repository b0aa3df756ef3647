// The attention maps of all iterations, sent once beside their figures and laid into them here while
// scrubbing; and what a token reads, shown in the tokens of the bar. Nothing here asks the server.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  lens.frames = lens.frames || {};
  const MISSING = 65535;
  const decoded = new WeakMap();
  const shown = {}; // by panel: { frames, at }: the maps, and the place of the one that is drawn
  let pointed = null; // { panel, head, query }: the row that the pointer is on

  function weightsOf(frames) {
    if (!decoded.has(frames)) {
      const bytes = Uint8Array.from(window.atob(frames.weights), (text) => text.charCodeAt(0));
      decoded.set(frames, new Uint16Array(bytes.buffer));
    }
    return decoded.get(frames);
  }

  // The last map at or before the iteration; -1 at iteration 0, before anything attended.
  function placeOf(frames, iteration) {
    let found = -1;
    frames.iterations.forEach((number, place) => (found = number <= iteration ? place : found));
    return found;
  }

  function weight(frames, place, head, query, key) {
    if (place < 0) return null;
    const { heads, cells, causal } = frames;
    if (causal && key > query) return null;
    const each = causal ? (cells * (cells + 1)) / 2 : cells * cells;
    const start = causal ? (query * (query + 1)) / 2 : query * cells;
    const code = weightsOf(frames)[(place * heads + head) * each + start + key];
    return code === MISSING ? null : (code / (MISSING - 1)) * frames.scale;
  }

  function square(cells, value) {
    const places = Array.from({ length: cells }, (_, place) => place);
    return places.map((query) => places.map((key) => value(query, key)));
  }

  // A figure that is not drawn anew yet waits: its maps are not these.
  function isDrawn(graph, frames) {
    const meta = graph.data && graph.data[0] && graph.data[0].meta;
    return Boolean(meta && meta.key === frames.key);
  }

  function redraw(panel, graph, frames, iteration, change) {
    if (!isDrawn(graph, frames)) return;
    watch(panel, graph);
    const place = placeOf(frames, iteration);
    const state = (shown[panel] = { frames: frames, at: place });
    const meta = graph.data[0].meta;
    const drawn = place + "/" + frames.against;
    if (meta.drawn !== drawn) change(place, { ...meta, drawn: drawn });
    if (pointed && pointed.panel === panel) shade(state);
  }

  lens.frames.heads = function (graph, frames, iteration) {
    redraw("heads", graph, frames, iteration, function (place, meta) {
      const across = graph.data[0].x.length;
      const laid = Array.from(graph.data[0].y, () => new Array(across).fill(null));
      meta.tiles.forEach(function ([top, left], head) {
        for (let query = 0; query < meta.cells; query += 1) {
          for (let key = 0; key < meta.cells; key += 1) {
            laid[top + query][left + key] = weight(frames, place, head, query, key);
          }
        }
      });
      window.Plotly.restyle(graph, { z: [laid], meta: [meta] }, [0]);
    });
    frameHead(graph);
  };

  // The stronger frame goes to the selected head; without one, it is out of sight.
  function frameHead(graph) {
    const index = (graph.layout.shapes || []).findIndex((shape) => shape.name === "head");
    if (index < 0 || !lens.selection || !graph.data[0].meta) return;
    const meta = graph.data[0].meta;
    const head = Number(lens.selection.head); // not a number: the mean of all
    const visible = Number.isInteger(head) && head < meta.tiles.length;
    const [top, left] = visible ? meta.tiles[head] : [0, 0];
    const shape = graph.layout.shapes[index];
    if (shape.visible === visible && (!visible || (shape.x0 === left - 0.5 && shape.y0 === top - 0.5)))
      return;
    const key = "shapes[" + index + "].";
    window.Plotly.relayout(graph, {
      [key + "visible"]: visible,
      [key + "x0"]: left - 0.5,
      [key + "x1"]: left + meta.cells - 0.5,
      [key + "y0"]: top - 0.5,
      [key + "y1"]: top + meta.cells - 0.5,
    });
  }

  lens.frames.attention = function (graph, frames, iteration) {
    redraw("attention", graph, frames, iteration, function (place, meta) {
      const map = square(frames.cells, (query, key) => weight(frames, place, 0, query, key));
      window.Plotly.restyle(graph, { z: [map], meta: [meta] }, [0]);
    });
  };

  lens.frames["attention-difference"] = function (graph, frames, iteration) {
    redraw("attention-difference", graph, frames, iteration, function (place, meta) {
      const other = frames.iterations.indexOf(frames.against);
      const strong = [];
      let largest = 0;
      const map = square(frames.cells, function (query, key) {
        const now = weight(frames, place, 0, query, key);
        const then = weight(frames, other, 0, query, key);
        const change = now === null || then === null ? null : now - then;
        largest = Math.max(largest, Math.abs(change || 0));
        if (change) strong.push([Math.abs(change), change, query, key]);
        return change;
      });
      const scale = Math.max(meta.least, largest);
      const middle = (meta.joined - 1) / 2;
      const signs = strong
        .filter(([size]) => size >= scale / 2)
        .sort((one, next) => next[0] - one[0])
        .slice(0, meta.signs);
      const at = (cell) => cell * meta.joined + middle;
      // Both traces in one go; what is undefined stays as it is.
      const changes = {
        z: [map, undefined],
        zmin: [-scale, undefined],
        zmax: [scale, undefined],
        meta: [meta, undefined],
        x: [undefined, signs.map(([, , , key]) => at(key))],
        y: [undefined, signs.map(([, , query]) => at(query))],
        text: [undefined, signs.map(([, change]) => (change > 0 ? "+" : "−"))],
      };
      window.Plotly.restyle(graph, changes, [0, 1]);
    });
  };

  // What a token reads, in the tokens of the bar

  function watch(panel, graph) {
    if (graph.looplensReads) return;
    graph.looplensReads = true;
    graph.on("plotly_hover", function (event) {
      const point = event.points[0];
      const row = point.pointNumber && point.pointNumber[0];
      if (row === undefined || point.data.type !== "heatmap") return;
      const meta = point.data.meta;
      const head = panel === "heads" ? point.customdata : 0;
      const first = panel === "heads" ? meta.tiles[head][0] : 0;
      pointed = { panel: panel, head: head, query: row - first };
      if (shown[panel]) shade(shown[panel]);
    });
    graph.on("plotly_unhover", clear);
    if (panel === "heads") {
      graph.on("plotly_click", (event) => lens.pick({ head: String(event.points[0].customdata) }));
    }
  }

  const strip = () => document.getElementById("strip-panel");

  function shade(state) {
    const place = strip();
    if (!place) return;
    const { frames, at } = state;
    const cell = new Map();
    frames.tokens.forEach((token, position) => cell.set(token, Math.floor(position / frames.joined)));
    place.classList.add("reading");
    place.querySelectorAll("[data-token]").forEach(function (element) {
      const key = cell.get(Number(element.dataset.token));
      const part = key === undefined ? null : weight(frames, at, pointed.head, pointed.query, key);
      const shown = part || 0;
      element.style.setProperty("--read", Math.sqrt(shown).toFixed(3));
      element.classList.toggle("reads", key === pointed.query);
      if (shown >= 0.05) element.dataset.read = shown.toFixed(2).replace(/^0/, "");
      else delete element.dataset.read;
    });
  }

  function clear() {
    pointed = null;
    const place = strip();
    if (!place) return;
    place.classList.remove("reading");
    place.querySelectorAll("[data-token]").forEach(function (element) {
      element.classList.remove("reads");
      delete element.dataset.read;
    });
  }

  // Pointing at a token of the bar does the same, for the head whose map is on the page.
  document.addEventListener("pointerover", function (event) {
    const within = (selector) => event.target.closest && event.target.closest(selector);
    const token = within("#strip-panel [data-token]");
    const state = shown.attention;
    const there = token && state && lens.graph("attention");
    const position = there ? state.frames.tokens.indexOf(Number(token.dataset.token)) : -1;
    if (position >= 0) {
      const query = Math.floor(position / state.frames.joined);
      pointed = { panel: "attention", head: 0, query: query };
      shade(state);
    } else if (pointed && !within("#" + pointed.panel + "-panel")) {
      clear();
    }
  });
})();
