// What follows the scrubber: the cursors of the figures and the number. Nothing here asks the server.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
  const GRAPHS = ["heatmap", "trajectory", "steps", "restarts", "attention"];
  const CURSOR = "cursor";

  lens.selection = null;
  let scheduled = false;

  // The plotly element of a panel, or null while it is not drawn.
  lens.graph = function (name) {
    const place = document.getElementById(name + "-graph");
    const drawn = place && place.querySelector(".js-plotly-plot");
    return drawn && drawn._fullLayout && drawn.data ? drawn : null;
  };

  clientside.follow = function (opened, selection, frames) {
    const iteration = lens.standsAt(opened);
    lens.selection = selection;
    lens.attentionFrames(frames);
    schedule();
    // A figure that has just arrived is drawn a little later than its callback says.
    [60, 250, 1000].forEach((wait) => setTimeout(schedule, wait));
    return iteration === null ? window.dash_clientside.no_update : String(iteration);
  };

  function schedule() {
    if (scheduled) return;
    scheduled = true;
    window.requestAnimationFrame(function () {
      scheduled = false;
      GRAPHS.forEach(function (name) {
        const graph = lens.graph(name);
        if (graph && inSight(graph)) update(name, graph);
      });
    });
  }

  // What is scrolled away waits, so that the figures in sight move more smoothly.
  function inSight(graph) {
    const box = graph.getBoundingClientRect();
    return box.bottom > 0 && box.top < window.innerHeight;
  }
  window.addEventListener("scroll", schedule, { passive: true });
  window.addEventListener("resize", schedule);

  function update(name, graph) {
    if (!graph.looplensWatched) {
      graph.looplensWatched = true;
      graph.on("plotly_afterplot", schedule); // a redrawn figure may be older than the scrubber
      keepToItself(graph);
    }
    moveShapes(graph);
    moveMarker(graph);
    if (name === "attention") lens.showAttention(graph);
  }

  // Dash would carry every move of a cursor through the whole page; nothing there listens to them,
  // and without that the scrubber is nearly twice as fast.
  function keepToItself(graph) {
    const emit = graph.emit.bind(graph);
    graph.emit = function (name, ...rest) {
      if (name !== "plotly_relayout" && name !== "plotly_restyle") emit(name, ...rest);
    };
  }

  // Lines at the iteration, and the frame around the row of the selected token.
  function moveShapes(graph) {
    const changes = {};
    (graph.layout.shapes || []).forEach(function (shape, index) {
      const key = "shapes[" + index + "].";
      if (shape.name === CURSOR && shape.x0 !== lens.iteration) {
        changes[key + "x0"] = changes[key + "x1"] = lens.iteration;
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

  // The marker of the trajectory takes the place of the state at the iteration.
  function moveMarker(graph) {
    const role = (trace) => (trace.meta || {}).role;
    const index = graph.data.findIndex((trace) => role(trace) === CURSOR);
    const path = graph.data.find((trace) => role(trace) === "trajectory");
    if (index < 0 || !path) return;
    const at = Array.from(path.customdata).indexOf(lens.iteration);
    const place = (axis) => (at < 0 ? null : path[axis][at]);
    const marker = graph.data[index];
    const axes = ["x", "y", "z"].filter((axis) => path[axis]);
    if (axes.every((axis) => marker[axis] && marker[axis][0] === place(axis))) return;
    const changes = {};
    axes.forEach((axis) => (changes[axis] = [[place(axis)]]));
    window.Plotly.restyle(graph, changes, [index]);
  }
})();
