// The attention maps of all iterations, sent once by panels/attention.py, swapped while scrubbing.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const MISSING = 65535;
  let source = null;
  let weights = null;

  lens.attentionFrames = function (frames) {
    if (frames === source) return;
    source = frames || null;
    weights = null;
    if (!source) return;
    const bytes = Uint8Array.from(window.atob(source.weights), (character) => character.charCodeAt(0));
    weights = new Uint16Array(bytes.buffer);
  };

  // The last map at or before the iteration; none at iteration 0, before anything attended.
  function frameAt(iteration) {
    let found = -1;
    source.iterations.forEach((number, index) => {
      if (number <= iteration) found = index;
    });
    return found;
  }

  function map(frame) {
    const size = source.size;
    const value = function (code) {
      return code === MISSING ? null : (code / (MISSING - 1)) * source.scale;
    };
    return Array.from({ length: size }, function (_, query) {
      const start = (frame * size + query) * size;
      return Array.from({ length: size }, (_, key) =>
        frame < 0 ? null : value(weights[start + key]),
      );
    });
  }

  lens.showAttention = function (graph) {
    if (!weights || graph.data.length === 0) return;
    const frame = frameAt(lens.iteration);
    const shown = graph.data[0];
    if (shown.meta && shown.meta.frame === frame && shown.meta.source === source.key) return;
    if (graph.layout.meta && graph.layout.meta.key !== source.key) return; // its maps are under way
    const meta = { frame: frame, source: source.key };
    window.Plotly.restyle(graph, { z: [map(frame)], meta: [meta] }, [0]);
  };
})();
