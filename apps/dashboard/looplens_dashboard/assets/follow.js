// What follows the scrubber: cursors of figures, what panels registered, the number. Nothing here
// asks the server. A panel with something of its own to move registers a function:
// looplens.frames[panel] = (element, frames, iteration) => ..., where the element is its plotly
// graph or the body of the panel, and frames what the server sent beside it.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
  const CURSOR = "cursor";
  const role = (trace) => (trace.meta || {}).role;

  lens.frames = lens.frames || {};
  const sent = {}; // frames by panel
  let scheduled = false;
  let later = null; // what waits for figures that are being drawn
  const LONGEST_WAIT = 20000; // ms

  // The plotly element of a panel, or null while it is not drawn.
  lens.graph = function (name) {
    const place = document.getElementById(name + "-panel");
    const drawn = place && place.querySelector(".js-plotly-plot");
    return drawn && drawn._fullLayout && drawn.data && drawn.offsetParent ? drawn : null;
  };

  clientside.follow = function (iteration, selection, _figures, frames, ids) {
    if (!selection) return;
    lens.take(selection, iteration);
    Object.keys(sent).forEach((name) => delete sent[name]);
    ids.forEach((id, index) => (sent[id.panel] = frames[index]));
    lens.update();
    clearTimeout(later);
    updateLater(60);
  };

  // A figure that has just arrived is drawn later than its callback says; on a busy machine, much later.
  function updateLater(wait) {
    later = setTimeout(function () {
      lens.update();
      if (wait < 1000 || (wait < LONGEST_WAIT && isDrawing())) updateLater(2 * wait);
    }, wait);
  }

  function isDrawing() {
    return [...document.querySelectorAll("[data-panel] .dash-graph")].some(function (place) {
      const graph = place.querySelector(".js-plotly-plot");
      return place.offsetParent && inSight(place) && !(graph && graph.looplensWatched);
    });
  }

  lens.update = function () {
    if (scheduled) return;
    scheduled = true;
    window.requestAnimationFrame(function () {
      scheduled = false;
      const number = document.getElementById("iteration-number");
      if (number && lens.iteration !== null) number.textContent = String(lens.iteration);
      document.querySelectorAll("[data-panel]").forEach(function (panel) {
        if (inSight(panel)) update(panel);
      });
    });
  };

  // What is scrolled away waits, so that the figures in sight move more smoothly.
  function inSight(element) {
    const box = element.getBoundingClientRect();
    return box.bottom > 0 && box.top < window.innerHeight;
  }
  window.addEventListener("scroll", () => lens.update(), { passive: true });
  window.addEventListener("resize", () => lens.update());

  function update(panel) {
    const name = panel.dataset.panel;
    const graph = lens.graph(name);
    if (graph) {
      if (!graph.looplensWatched) watch(graph, name);
      moveShapes(graph);
      moveMarkers(graph);
    }
    const own = lens.frames[name];
    const body = graph || panel.querySelector(".body");
    if (own && body && sent[name] && lens.iteration !== null) own(body, sent[name], lens.iteration);
  }

  function watch(graph, name) {
    graph.looplensWatched = true;
    graph.on("plotly_afterplot", lens.update); // a redrawn figure may be older than the scrubber
    graph.on("plotly_click", (event) => clicked(graph, event));
    if (lens.zoom) lens.zoom.watch(graph, name);
    keepToItself(graph);
  }

  // Dash would carry every move of a cursor through the whole page; nothing there listens to them,
  // and without that the scrubber is nearly twice as fast.
  function keepToItself(graph) {
    const emit = graph.emit.bind(graph);
    graph.emit = function (name, ...rest) {
      if (name === "plotly_relayout" || name === "plotly_restyle") {
        if (graph.looplensZoomed) graph.looplensZoomed(rest[0]);
        return;
      }
      emit(name, ...rest);
    };
  }

  // A click on a point selects its token and its iteration, where it has them; on a heat map with
  // tokens as rows, those of the cell.
  function clicked(graph, event) {
    const point = event.points[0];
    const shift = Boolean(event.event && event.event.shiftKey);
    const meta = point.data.meta || {};
    const layout = graph.layout.meta || {};
    const token = meta.token ?? (meta.tokens || [])[point.pointNumber];
    const at = role(point.data) === "trajectory" ? point.customdata : alongIterations(graph, point);
    if (Number.isFinite(Number(at ?? NaN))) lens.goTo(Math.round(Number(at)));
    if (point.data.type === "heatmap" && layout.first_token !== undefined) {
      lens.pickToken(String(layout.first_token + Math.round(point.y)), shift);
    } else if (token !== undefined && token !== null && String(token) !== lens.selection.token) {
      lens.pickToken(String(token), shift);
    }
  }

  // The iteration of a point of a plot whose cursor moves along its x axis, else null.
  function alongIterations(graph, point) {
    const axis = (point.xaxis || {})._id;
    const moved = (graph.layout.shapes || []).some(
      (shape) => shape.name === CURSOR && (shape.xref || "x").split(" ")[0] === axis,
    );
    return moved ? point.x : null;
  }

  // Lines at the iteration, and the frame around the row of the selected token.
  function moveShapes(graph) {
    const changes = {};
    (graph.layout.shapes || []).forEach(function (shape, index) {
      const key = "shapes[" + index + "].";
      if (shape.name === CURSOR && shape.x0 !== lens.iteration) {
        changes[key + "x0"] = changes[key + "x1"] = lens.iteration;
        if (shape.visible === false) changes[key + "visible"] = true;
      }
      if (shape.name === "row" && lens.selection) {
        const row = Number(lens.selection.token) - graph.layout.meta.first_token;
        if (shape.y0 !== row - 0.5) {
          changes[key + "y0"] = row - 0.5;
          changes[key + "y1"] = row + 0.5;
        }
      }
    });
    if (Object.keys(changes).length) window.Plotly.relayout(graph, changes);
  }

  // The cursor has one point for each trajectory, which takes the place of its state there.
  function moveMarkers(graph) {
    const index = graph.data.findIndex((trace) => role(trace) === CURSOR);
    if (index < 0) return;
    const paths = graph.data.filter((trace) => role(trace) === "trajectory");
    const marker = graph.data[index];
    const at = paths.map((path) => Array.from(path.customdata).indexOf(lens.iteration));
    const axes = ["x", "y", "z"].filter((axis) => paths[0] && paths[0][axis]);
    const places = axes.map((axis) =>
      paths.map((path, row) => (at[row] < 0 ? null : path[axis][at[row]])),
    );
    const same = axes.every(
      (axis, n) => marker[axis] && places[n].every((value, row) => marker[axis][row] === value),
    );
    if (same && marker.visible !== false) return;
    const changes = { visible: true };
    axes.forEach((axis, n) => (changes[axis] = [places[n]]));
    window.Plotly.restyle(graph, changes, [index]);
  }
})();
