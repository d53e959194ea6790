// Each button sends one request and shows the status of the answer and the time until its last byte.
"use strict";

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
    status = "no answer";
    failed = true;
  }
  return { text: `${status} after ${Math.round(performance.now() - started)} ms`, failed };
}

for (const button of document.querySelectorAll("button[data-path]")) {
  const output = button.parentElement.querySelector("output");
  button.addEventListener("click", async () => {
    button.disabled = true;
    output.className = "";
    output.textContent = "waiting…";
    const answer = await send(button.dataset.path);
    output.className = answer.failed ? "bad" : "good";
    output.textContent = answer.text;
    button.disabled = false;
  });
}
