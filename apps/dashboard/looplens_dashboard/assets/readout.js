// The page Readout & exits: the table at the scrubbed iteration, and the threshold of an exit rule.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  lens.frames = lens.frames || {};

  function element(type, className, ...children) {
    const made = document.createElement(type);
    if (className) made.className = className;
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function percent(share) {
    if (share === null) return "–";
    if (share > 0 && share < 0.0005) return "< 0.1 %";
    return (100 * share).toFixed(1) + " %";
  }

  function nats(value) {
    if (value === null) return "–";
    return (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(3)) + " nats";
  }

  function row(word, share, isTarget) {
    const bar = element("div", "bar");
    bar.style.width = 100 * Math.min(1, share || 0) + "%";
    const head = element("th", "", word, isTarget ? element("span", "tag", "right answer") : null);
    head.scope = "row";
    const track = element("td", "", element("div", "track", bar));
    return element("tr", isTarget ? "target" : "", head, track, element("td", "number", percent(share)));
  }

  function facts(pairs) {
    const list = element("dl", "readout-facts");
    pairs.forEach(([name, text]) =>
      list.append(element("div", "", element("dt", "", name), element("dd", "", text))),
    );
    return list;
  }

  // Frames are those of panels that the server draws; a table of one iteration is made here.
  lens.frames["readout-now"] = function (body, data, iteration) {
    const place = body.querySelector(".readout-now");
    if (!place || (place.looplensShows && place.looplensShows[0] === data && place.looplensShows[1] === iteration)) return;
    place.looplensShows = [data, iteration];
    const at = data.iterations.indexOf(iteration);
    if (at < 0) {
      const words =
        iteration === 0
          ? "Iteration 0 is the state before the first pass: nothing has been read out yet."
          : "This iteration was not kept.";
      place.replaceChildren(element("div", "message", words));
      return;
    }
    const target = data.target;
    const table = element("tbody", "");
    data.words[at].forEach((word, rank) =>
      table.append(row(word, data.probabilities[at][rank], Boolean(target) && target.rank[at] === rank)),
    );
    const said = target
      ? `“${target.word}” ${percent(target.probability[at])}, rank ${target.rank[at] + 1}`
      : "none for this token";
    place.replaceChildren(
      element("table", "predictions", table),
      facts([
        ["Right answer", said],
        ["Entropy", nats(data.entropy[at])],
        ["KL from the previous", nats(data.change[at])],
      ]),
    );
  };

  function slider() {
    const place = document.getElementById("threshold-place");
    if (place && !place.firstChild) {
      const made = element("input", "");
      Object.assign(made, { id: "threshold-slider", type: "range", min: "0", step: "1" });
      made.setAttribute("aria-label", "Threshold of the exit rule");
      place.append(made);
    }
    return place && place.firstChild;
  }

  const bench = (graph) => (graph && graph.layout.meta && graph.layout.meta.bench) || null;
  let moved = null; // the figure that the slider was set for

  lens.frames.bench = function (graph) {
    const data = bench(graph);
    if (!data || moved === data) return;
    moved = data;
    const range = slider();
    if (range) {
      range.max = String(data.thresholds.length - 1);
      range.value = String(data.stands);
      say(range, data, data.stands);
    }
    if (graph.looplensBench) return;
    graph.looplensBench = true;
    graph.on("plotly_click", function (event) {
      const point = event.points[0];
      if ((point.data.meta || {}).role === "threshold") {
        stand(graph, point.pointNumber);
        keep(graph, point.pointNumber);
      }
    });
  };

  function say(range, data, place) {
    range.setAttribute("aria-valuetext", "threshold " + data.thresholds[place]);
  }

  // Everything that stands at the threshold comes with the figure, so moving it asks nobody.
  function stand(graph, place) {
    const data = bench(graph);
    const changes = {};
    (graph.layout.shapes || []).forEach(function (shape, index) {
      if (shape.name === "threshold") changes[`shapes[${index}].x0`] = changes[`shapes[${index}].x1`] = place;
    });
    (graph.layout.annotations || []).forEach(function (note, index) {
      if (note.name === "threshold") changes[`annotations[${index}].text`] = data.says[place];
    });
    const histogram = graph.data.findIndex((trace) => (trace.meta || {}).role === "histogram");
    window.Plotly.update(graph, { y: [data.exit_share[place]] }, changes, [histogram]);
    const range = slider();
    if (range) {
      range.value = String(place);
      say(range, data, place);
    }
  }

  // The rule and the threshold belong to the link, so they are chosen when the slider is let go.
  function keep(graph, place) {
    const data = bench(graph);
    lens.pick({ rule: data.rule, threshold: data.words[place] });
  }

  document.addEventListener("input", function (event) {
    const graph = event.target.id === "threshold-slider" && lens.graph("bench");
    if (graph && bench(graph)) stand(graph, Number(event.target.value));
  });
  document.addEventListener("change", function (event) {
    const graph = event.target.id === "threshold-slider" && lens.graph("bench");
    if (graph && bench(graph)) keep(graph, Number(event.target.value));
  });
})();
