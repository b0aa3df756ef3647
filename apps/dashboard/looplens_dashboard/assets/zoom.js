// Where the reader zoomed to, and how a cube is turned: a part of the address that only the browser
// knows. Written as panel~xaxis:low,high~yaxis:low,high~scene:eye,center,up;panel~...
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const LONGEST = 1500;
  const ASKED = /^[xyz.\w]*axis\d*\.(range|autorange)|^scene\d*\.camera/;
  const AXIS = /^[xy]axis\d*$/;
  const SCENE = /^scene\d*$/;
  const VECTORS = ["eye", "center", "up"];
  const seen = {}; // by panel: by axis or scene, the numbers
  let asked = {}; // as opened, until the panel has been drawn

  const short = (number) => Number(Number(number).toPrecision(6));
  const close = (a, b) => a.every((value, at) => Math.abs(value - b[at]) <= 1e-4 * (1 + Math.abs(b[at])));

  // What a graph shows along an axis, or from where; null where it is what the figure itself asks for.
  function numbers(graph, name) {
    const layout = graph._fullLayout[name];
    if (!layout) return null;
    if (SCENE.test(name)) {
      const camera = layout.camera;
      return VECTORS.flatMap((vector) => ["x", "y", "z"].map((axis) => short(camera[vector][axis])));
    }
    return layout.autorange === true || !layout.range ? null : layout.range.map(short);
  }

  function zoomed(graph, name, changes) {
    const touched = Object.keys(changes || {}).filter((key) => ASKED.test(key));
    if (!touched.length) return;
    touched
      .map((key) => key.split(".")[0])
      .forEach(function (axis) {
        const found = numbers(graph, axis);
        seen[name] = seen[name] || {};
        if (found) seen[name][axis] = found;
        else delete seen[name][axis];
      });
    lens.writeAddress();
  }

  function apply(graph, name) {
    const wanted = asked[name];
    if (!wanted) return;
    delete asked[name];
    const changes = {};
    Object.entries(wanted).forEach(function ([axis, values]) {
      if (!graph._fullLayout[axis]) return;
      if (AXIS.test(axis)) changes[axis + ".range"] = values;
      else {
        const vector = (at) => ({ x: values[3 * at], y: values[3 * at + 1], z: values[3 * at + 2] });
        changes[axis + ".camera"] = { eye: vector(0), center: vector(1), up: vector(2) };
      }
    });
    if (!Object.keys(changes).length) return;
    seen[name] = wanted;
    window.Plotly.relayout(graph, changes);
  }

  lens.zoom = {
    // Take the part of an address; what is not written as above is left out.
    read: function (text) {
      asked = {};
      Object.keys(seen).forEach((name) => delete seen[name]);
      if (!text || text.length > LONGEST) return;
      text.split(";").forEach(function (entry) {
        const [name, ...parts] = entry.split("~");
        parts.forEach(function (part) {
          const [axis, listed] = part.split(":");
          const values = (listed || "").split(",").map(Number);
          const fits = AXIS.test(axis) ? values.length === 2 : SCENE.test(axis) && values.length === 9;
          if (!fits || !values.every(Number.isFinite)) return;
          asked[name] = { ...asked[name], [axis]: values };
        });
      });
    },

    // The part of the address, of the graphs that still stand where they were zoomed to.
    text: function () {
      const waiting = Object.keys(asked).filter((name) => document.getElementById(name + "-panel"));
      const shown = { ...Object.fromEntries(waiting.map((name) => [name, asked[name]])) };
      Object.keys(seen).forEach(function (name) {
        const graph = lens.graph(name);
        if (!graph) return;
        const kept = Object.entries(seen[name]).filter(function ([axis, values]) {
          const found = numbers(graph, axis);
          return found && close(found, values);
        });
        if (kept.length) shown[name] = Object.fromEntries(kept);
      });
      const texts = Object.entries(shown).sort().map(([name, axes]) =>
        [name, ...Object.entries(axes).map(([axis, values]) => axis + ":" + values.join(","))].join("~"),
      );
      return texts.join(";").slice(0, LONGEST);
    },

    watch: function (graph, name) {
      graph.looplensZoomed = (changes) => zoomed(graph, name, changes);
      apply(graph, name);
    },
  };
})();
