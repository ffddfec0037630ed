// An MQTT 5 client's view of the server at the given address. Prints "ok" or
// the first thing that is not as it should be.
"use strict";
const assert = require("node:assert");
const mqtt = require("mqtt");

const url = process.argv[2];
const limit = setTimeout(() => { console.log("timed out"); process.exit(1); }, 20000);

function open(clientId, options) {
  return new Promise((resolve, reject) => {
    const client = mqtt.connect(url, { protocolVersion: 5, clientId, reconnectPeriod: 0, ...options });
    const early = [];
    client.on("message", (topic, payload, packet) => early.push(packet));
    client.on("connect", (connack) => resolve({ client, connack, messages: early }));
    client.on("error", reject);
  });
}

async function received(peer, n) {
  while (peer.messages.length < n) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return peer.messages.splice(0, n);
}

async function main() {
  const session = { clean: false, properties: { sessionExpiryInterval: 3600, receiveMaximum: 5 } };
  let sub = await open("npm-sub", session);
  assert.strictEqual(sub.connack.sessionPresent, false);
  const granted = await sub.client.subscribeAsync(
    { "npm/+/data": { qos: 2, rap: true }, "npm/one": { qos: 1 } }, { properties: { subscriptionIdentifier: 42 } });
  assert.deepStrictEqual(granted.map((g) => g.qos).sort(), [1, 2]);

  const pub = await open("npm-pub", { clean: true, topicAliasMaximum: 10, autoAssignTopicAlias: true,
    will: { topic: "npm/will/data", payload: "gone", qos: 1, properties: { willDelayInterval: 0 } } });
  assert.ok(pub.connack.properties.topicAliasMaximum > 0);
  const properties = {
    messageExpiryInterval: 60, contentType: "text/plain", responseTopic: "npm/answer",
    correlationData: Buffer.from("c1"), userProperties: { a: ["1", "2"], b: "3" }, payloadFormatIndicator: true,
  };
  for (const qos of [0, 1, 2]) {
    await pub.client.publishAsync("npm/x/data", "q" + qos, { qos, properties });
  }
  let got = await received(sub, 3);
  assert.deepStrictEqual(got.map((p) => [p.payload.toString(), p.qos]), [["q0", 0], ["q1", 1], ["q2", 2]]);
  for (const p of got) {
    assert.strictEqual(p.properties.contentType, "text/plain");
    assert.strictEqual(p.properties.responseTopic, "npm/answer");
    assert.strictEqual(p.properties.correlationData.toString(), "c1");
    assert.strictEqual(p.properties.messageExpiryInterval, 60);
    assert.strictEqual(p.properties.subscriptionIdentifier, 42);
    assert.deepStrictEqual({ ...p.properties.userProperties }, { a: ["1", "2"], b: "3" });
  }

  // Many in flight, both ways, in order.
  const many = [];
  for (let i = 0; i < 300; i++) {
    many.push(pub.client.publishAsync("npm/x/data", String(i), { qos: 1 + (i % 2) }));
  }
  await Promise.all(many);
  got = await received(sub, 300);
  assert.deepStrictEqual(got.filter((p) => p.qos === 1).map((p) => +p.payload), [...Array(150).keys()].map((i) => 2 * i));
  assert.deepStrictEqual(got.filter((p) => p.qos === 2).map((p) => +p.payload), [...Array(150).keys()].map((i) => 2 * i + 1));

  // The session outlives its connection.
  await sub.client.endAsync();
  await pub.client.publishAsync("npm/one", "kept", { qos: 1, retain: true });
  sub = await open("npm-sub", session);
  assert.strictEqual(sub.connack.sessionPresent, true);
  assert.strictEqual((await received(sub, 1))[0].payload.toString(), "kept");
  await sub.client.unsubscribeAsync("npm/one");
  await sub.client.subscribeAsync("npm/one", { qos: 1 });
  const [again] = await received(sub, 1);
  assert.ok(again.retain && again.payload.toString() === "kept");

  // A lost connection leaves a will.
  pub.client.stream.destroy();
  assert.strictEqual((await received(sub, 1))[0].payload.toString(), "gone");
  await sub.client.endAsync();
  clearTimeout(limit);
  console.log("ok");
}

main().catch((err) => { console.log(String(err && err.stack || err)); process.exit(1); });
