// The payload codec of sparkplug-payload. Lines on standard input:
//   {"decode":"hex"}  prints what was decoded, as JSON, metric values as text
//   {"encode":{…}}    prints {"hex":…}
"use strict";

const sparkplug = require("sparkplug-payload").get("spBv1.0");

function text(v) {
  if (v === null || v === undefined) return null;
  return Buffer.isBuffer(v) || v instanceof Uint8Array ? Buffer.from(v).toString("hex") : String(v);
}

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const q = JSON.parse(line);
  let answer;
  if (q.decode !== undefined) {
    const p = sparkplug.decodePayload(Buffer.from(q.decode, "hex"));
    answer = {
      timestamp: text(p.timestamp), seq: text(p.seq), uuid: text(p.uuid), body: text(p.body),
      metrics: p.metrics.map((m) => ({
        name: m.name || "", alias: text(m.alias), timestamp: text(m.timestamp), type: m.type || "", value: text(m.value),
        historical: !!m.isHistorical, transient: !!m.isTransient, null: !!m.isNull,
        properties: Object.fromEntries(Object.entries(m.properties || {}).map(([k, v]) => [k, v.type + ":" + text(v.value)])),
      })),
    };
  } else {
    answer = { hex: Buffer.from(sparkplug.encodePayload(q.encode)).toString("hex") };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
