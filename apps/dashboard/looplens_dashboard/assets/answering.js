// Says when the app stops answering, and when it answers again. Without it a page whose server was
// stopped looks like one on which nothing happens.
(function () {
  "use strict";
  const ASK_AGAIN = 3000; // ms
  const ask = window.fetch.bind(window);
  const WORDS = {
    400: "The app does not answer to this address. Open the one that was printed when it started.",
    401: "The app asks for its access token again. Open the address that was printed when it started.",
    403: "The app answers its own pages only. Open the address that was printed when it started.",
    413: "That was too much for the app in one request.",
    500: "The app failed on the last request. Where it was started it says why.",
  };
  const SILENT = "The app does not answer. Is it still running where it was started? What is shown stays.";
  let timer = null;

  function tell(text) {
    let place = document.getElementById("answering");
    if (!place) {
      if (!text) return;
      place = document.createElement("div");
      place.id = "answering";
      place.setAttribute("role", "alert");
      document.body.append(place);
    }
    if (place.textContent !== text) place.textContent = text;
    place.hidden = !text;
  }

  async function askAgain() {
    timer = null;
    try {
      const answer = await ask("/_dash-layout", { cache: "no-store" });
      tell(answer.ok ? "" : WORDS[answer.status] || SILENT);
    } catch (error) {
      wait();
    }
  }

  function wait() {
    tell(SILENT);
    if (timer === null) timer = setTimeout(askAgain, ASK_AGAIN);
  }

  window.fetch = async function (...request) {
    try {
      const answer = await ask(...request);
      if (!String(answer.url).includes("/export/")) tell(WORDS[answer.status] || "");
      return answer;
    } catch (error) {
      if (error.name !== "AbortError") wait();
      throw error;
    }
  };
})();
