"use strict";

// Asks for the page again, and shows what the answer's header fields say about its way here.
// "no-store" keeps the browser's own cache out of it: otherwise that would answer, not an edge.

const HISTORY = 12;

const byId = (id) => document.getElementById(id);
const show = (id, text) => { byId(id).textContent = text || "\u00a0"; };

// Cache-Status (RFC 9211): members from the origin's side to ours; the last is nearest to us.
// "fra-1; hit; ttl=41" -> { name: "fra-1", hit: true, ttl: "41" }
function nearestCache(field) {
  const members = (field || "").match(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g);
  if (!members) return null;
  const [name, ...params] = members[members.length - 1].split(";").map((part) => part.trim());
  const cache = { name: name.replace(/^"|"$/g, "") };
  for (const param of params) {
    const [key, value = true] = param.split("=");
    cache[key] = value;
  }
  return cache;
}

function verdict(cache) {
  if (!cache) return ["direct", "no edge", "The origin answered itself."];
  if (cache.hit && Number(cache.ttl) < 0) return ["stale", "stale hit", "From the store, past its lifetime."];
  if (cache.hit) return ["hit", "hit", "From the edge's store."];
  if (cache.collapsed) return ["miss", "collapsed", "Waited for a question already on its way."];
  const kept = cache.stored ? "Stored for whoever asks next." : "Not stored.";
  return ["miss", "miss", `The edge asked the origin (${cache.fwd || "forwarded"}). ${kept}`];
}

function remember(state, outcome, edge, took) {
  const line = document.createElement("li");
  line.dataset.state = state;
  line.textContent = `${outcome} · ${edge} · ${took}`;
  const history = byId("history");
  history.prepend(line);
  while (history.children.length > HISTORY) history.lastChild.remove();
}

function fail(error) {
  byId("verdict").dataset.state = "error";
  show("outcome", "no answer");
  show("outcome-note", `${error.message || error}. Is the CDN still running?`);
}

async function ask() {
  const button = byId("ask");
  button.disabled = true;
  try {
    const began = performance.now();
    const response = await fetch(location.href, { cache: "no-store" });
    const body = await response.arrayBuffer();
    const took = `${(performance.now() - began).toFixed(1)} ms`;

    const field = response.headers.get("Cache-Status");
    const cache = nearestCache(field);
    const [state, outcome, note] = verdict(cache);
    const age = response.headers.get("Age");
    byId("verdict").dataset.state = state;
    show("outcome", outcome);
    show("outcome-note", note);
    show("edge", cache ? cache.name : "none");
    show("via", response.headers.get("Via") ? `Via: ${response.headers.get("Via")}` : "");
    show("age", age === null ? "–" : `${age} s`);
    show("ttl", cache && cache.ttl !== undefined ? `fresh for ${cache.ttl} s more` : "");
    show("took", took);
    show("size", `status ${response.status}, ${body.byteLength} bytes`);
    show("raw", ["Cache-Status", "Age", "Via", "ETag", "Cache-Control"]
      .map((name) => `${name}: ${response.headers.get(name) || "–"}`).join("\n"));
    remember(state, outcome, cache ? cache.name : "origin", took);
  } catch (error) {
    fail(error);
  } finally {
    button.disabled = false;
  }
}

byId("ask").addEventListener("click", ask);
ask();
