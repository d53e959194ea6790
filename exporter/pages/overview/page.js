// Loads the page again and again, and asks the neighbours for a sign of life. Nothing here is needed to read.
"use strict";

const INTERVAL = 5000; // ms
const TIMEOUT = 10000;
const KEY = "exporter-monitoring-paused";

const pause = document.getElementById("pause");
const news = document.getElementById("news");
let paused = recall();
let failing = false;

function recall() {
  try {
    return sessionStorage.getItem(KEY) === "1";
  } catch {
    return false; // a browser that keeps nothing
  }
}

function remember() {
  try {
    sessionStorage.setItem(KEY, paused ? "1" : "0");
  } catch {
    // The pause lasts as long as this page.
  }
}

function say(text) {
  if (news.textContent !== text) {
    news.textContent = text; // a screen reader hears each change
  }
}

function show() {
  pause.textContent = paused ? "Go on" : "Pause";
  say(paused ? "Paused." : `Refreshes every ${INTERVAL / 1000} s.`);
}

// A part in which somebody reads with the keyboard, or has marked text, stays as it is.
function isHeld(part) {
  const selection = getSelection();
  return (
    part.contains(document.activeElement) || (!selection.isCollapsed && selection.containsNode(part, true))
  );
}

function replace(part, next) {
  for (const details of part.querySelectorAll("details[open]")) {
    const twin = details.id && next.querySelector(`#${CSS.escape(details.id)}`);
    if (twin) {
      twin.open = true;
    }
  }
  const places = [...part.querySelectorAll(".wide")].map((element) => element.scrollLeft);
  part.replaceWith(next);
  next.querySelectorAll(".wide").forEach((element, at) => {
    element.scrollLeft = places[at] ?? 0;
  });
}

async function refresh() {
  if (paused || document.hidden) {
    return;
  }
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
    if (!answer.ok) {
      throw new Error(`the service answers ${answer.status}`);
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (paused) {
      return;
    }
    const before = document.getElementById("state").dataset.state;
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = page.getElementById(part.id);
      part.classList.toggle("held", isHeld(part));
      if (next && !isHeld(part)) {
        replace(part, document.adoptNode(next));
      }
    }
    document.title = page.title;
    document.body.classList.remove("stale");
    const state = document.getElementById("state").dataset.state;
    if (state !== before) {
      say(`Now ${state}.`);
    } else if (failing) {
      show();
    }
    failing = false;
  } catch (error) {
    document.body.classList.add("stale");
    failing = true;
    say(`These figures are old: ${error instanceof TypeError ? "the service does not answer" : error.message}.`);
  }
}

async function probe(place) {
  try {
    // Another origin shows a script no more than that it answers.
    await fetch(place.dataset.probe, { mode: "no-cors", signal: AbortSignal.timeout(TIMEOUT) });
    place.textContent = "answers";
    place.className = "good";
  } catch {
    const command = document.createElement("code");
    command.textContent = place.dataset.command;
    place.className = "bad";
    place.replaceChildren("gives this browser no answer; start it: ", command);
  }
}

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  remember();
  show();
  refresh();
});
show();
document.querySelectorAll("[data-probe]").forEach(probe);

async function watch() {
  await refresh();
  setTimeout(watch, INTERVAL);
}
setTimeout(watch, INTERVAL);
