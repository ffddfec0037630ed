// An edge node on sparkplug-client, whose messages our codec must read, and
// which prints the commands that it reads from ours.
//
//   node edge.js URL
"use strict";

const client = require("sparkplug-client").newClient({
  serverUrl: process.argv[2], username: "", password: "", groupId: "G", edgeNode: "peer", clientId: "peer", version: "spBv1.0", publishDeath: true,
});
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const metrics = [
  { name: "temp", alias: 1, type: "Double", value: 21.5, timestamp: 5, properties: { Quality: { type: "Int32", value: 192 } } },
  { name: "count", alias: 2, type: "Int16", value: -5, timestamp: 6 },
];

client.on("birth", () => {
  client.publishNodeBirth({ timestamp: 1, metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: false }] });
  client.publishDeviceBirth("press", { timestamp: 2, metrics });
  client.publishDeviceData("press", { timestamp: 3, metrics: [{ alias: 1, type: "Double", value: -0.25, timestamp: 7, isHistorical: true }] });
  client.publishDeviceDeath("press", { timestamp: 4 });
});
client.on("ncmd", (p) => print({ node: p.metrics.map((m) => m.name + "=" + m.value) }));
client.on("dcmd", (device, p) => print({ device, metrics: p.metrics.map((m) => m.name + "=" + m.value), timestamp: Number(p.timestamp) }));
