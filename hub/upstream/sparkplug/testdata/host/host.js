// A Sparkplug host application on mqtt and sparkplug-payload.
//
//   node host.js URL HOST KEEPALIVE
//
// With a HOST it says so with STATE and a will; with "" it only listens. Every
// message goes to standard output as one line of JSON. Lines on standard input,
// {"topic":…,"payload":…}, are encoded and published.
"use strict";

const mqtt = require("mqtt");
const sparkplug = require("sparkplug-payload").get("spBv1.0");
const { Payload } = require("sparkplug-payload/lib/sparkplugPayloadProto").org.eclipse.tahu.protobuf;

const [url, host, keepalive] = process.argv.slice(2);
const stateTopic = "spBv1.0/STATE/" + host;
const since = Date.now();
const state = (online) => JSON.stringify({ online, timestamp: since });

const births = new Map(); // "node/device" to a map from alias or name to { name, datatype }

function print(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

function text(v) {
  if (v === null || v === undefined) return null;
  return Buffer.isBuffer(v) || v instanceof Uint8Array ? Buffer.from(v).toString("hex") : String(v);
}

function properties(p) {
  const out = {};
  for (const [key, v] of Object.entries(p || {})) out[key] = text(v.value);
  return out;
}

const key = (m) => (m.hasOwnProperty("alias") ? "#" + m.alias : m.name);

// complete decodes a message. The library needs datatypes, which data messages
// should not have (tck-id-payloads-metric-datatype-not-req), so they are filled
// in from the birth, as the specification means a host to do.
function complete(owner, birth, body) {
  const raw = Payload.decode(body);
  if (birth) births.set(owner, new Map(raw.metrics.map((m) => [key(m), { name: m.name, datatype: m.datatype }])));
  const known = births.get(owner) || new Map();
  const named = raw.metrics.map((m) => m.hasOwnProperty("name"));
  for (const m of raw.metrics) {
    const b = known.get(key(m)) || {};
    if (!m.hasOwnProperty("datatype") && b.datatype) m.datatype = b.datatype;
    if (!m.hasOwnProperty("name") && b.name) m.name = b.name;
  }
  const p = sparkplug.decodePayload(Payload.encode(raw).finish());
  (p.metrics || []).forEach((m, i) => { m.named = named[i]; });
  return p;
}

function metric(m) {
  return {
    name: m.name || "", alias: text(m.alias) || "", named: m.named, type: m.type || "", value: text(m.value),
    timestamp: Number(m.timestamp), historical: !!m.isHistorical, properties: properties(m.properties),
  };
}

function receive(topic, body, packet) {
  const [, group, kind, node, device] = topic.split("/");
  if (group === "STATE") {
    print({ kind: "STATE", text: body.toString() });
    if (topic === stateTopic && !JSON.parse(body.toString()).online) {
      client.publish(stateTopic, state(true), { qos: 1, retain: true });
    }
    return;
  }
  const p = complete(node + "/" + (device || ""), kind.endsWith("BIRTH"), body);
  print({
    kind, node, device: device || "", qos: packet.qos, retain: packet.retain,
    timestamp: Number(p.timestamp), seq: p.seq === undefined || p.seq === null ? -1 : Number(p.seq),
    metrics: (p.metrics || []).map(metric),
  });
}

const client = mqtt.connect(url, {
  clean: true, reconnectPeriod: 0, keepalive: Number(keepalive), clientId: "host-" + host + "-" + process.pid,
  will: host ? { topic: stateTopic, payload: state(false), qos: 1, retain: true } : undefined,
});
client.on("message", receive);
client.on("error", (e) => { throw e; });
client.on("close", () => print({ kind: "CLOSED" }));
client.on("connect", () => {
  client.subscribe(["spBv1.0/#"], { qos: 1 }, () => {
    const ready = () => print({ kind: "READY" });
    if (host) client.publish(stateTopic, state(true), { qos: 1, retain: true }, ready);
    else ready();
  });
});

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const m = JSON.parse(line);
  client.publish(m.topic, Buffer.from(sparkplug.encodePayload(m.payload)), { qos: 0 });
});
