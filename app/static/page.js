// Each button sends its requests and shows the answers; the figures are loaded again and again.
"use strict";

const INTERVAL = 5000; // ms
const TEXTS = JSON.parse(document.querySelector("[data-texts]").dataset.texts);

function translate(text, values = {}) {
  return (TEXTS[text] ?? text).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

async function send(path) {
  const started = performance.now();
  let status;
  let failed;
  try {
    const response = await fetch(path, { cache: "no-store" });
    await response.arrayBuffer();
    status = response.status;
    failed = !response.ok;
  } catch {
    status = translate("no answer");
    failed = true;
  }
  return { status, failed, milliseconds: Math.round(performance.now() - started) };
}

async function sendOnce(path) {
  const { status, failed, milliseconds } = await send(path);
  return { text: translate("{status} after {milliseconds} ms", { status, milliseconds }), failed };
}

async function sendOften(path, times, report) {
  const counts = new Map();
  let answers = 0;
  let failed = false;
  await Promise.all(
    Array.from({ length: times }, async () => {
      const answer = await send(path);
      counts.set(answer.status, (counts.get(answer.status) ?? 0) + 1);
      failed ||= answer.failed;
      answers += 1;
      report(translate("{answers} of {times}…", { answers, times }));
    }),
  );
  return { text: [...counts].map(([status, count]) => `${count} × ${status}`).join(", "), failed };
}

for (const button of document.querySelectorAll("button[data-path]")) {
  const output = button.closest("li").querySelector("output");
  button.addEventListener("click", async () => {
    const { path, times } = button.dataset;
    const report = (text) => {
      output.textContent = text;
    };
    button.disabled = true;
    output.className = "";
    report(translate("waiting…"));
    const answer = times ? await sendOften(path, Number(times), report) : await sendOnce(path);
    output.className = answer.failed ? "bad" : "good";
    report(answer.text);
    button.disabled = false;
    if (document.activeElement === document.body) {
      button.focus(); // a disabled button has lost it
    }
    load();
  });
}

function show(name, text, state = "") {
  const place = document.querySelector(`[data-figure="${name}"]`);
  place.textContent = text;
  place.className = state;
}

async function json(path) {
  const answer = await fetch(path, { cache: "no-store", headers: { Accept: "application/json" } });
  return answer.json();
}

function milliseconds(value) {
  return value === null ? "–" : value < 10 ? `${value.toFixed(2)} ms` : `${value.toFixed(0)} ms`;
}

async function load() {
  try {
    const health = await json("/health");
    const stats = await json("/monitoring/stats");
    show("state", translate(health.status), health.status === "healthy" ? "good" : "bad");
    if ("total_requests" in stats) { // outsiders may not read them
      const percentiles = stats.response_time_percentiles;
      show("rate", stats.requests_per_second.toFixed(1));
      show("errors", `${(health.error_rate * 100).toFixed(1)} %`, health.error_rate > 0.05 ? "bad" : "");
      show("p50", milliseconds(percentiles.p50));
      show("p95", milliseconds(percentiles.p95));
      show("requests", stats.total_requests.toLocaleString("en"));
    }
  } catch {
    show("state", translate("no answer"), "bad");
  }
}

async function watch() {
  if (!document.hidden) {
    await load();
  }
  setTimeout(watch, INTERVAL);
}
watch();
