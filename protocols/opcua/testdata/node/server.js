// An OPC UA server for the adapter's tests, on an implementation that is not ours.
//
// Arguments: one JSON object. Commands come on stdin, one JSON object a line; each is
// answered by a line on stdout that begins with @@. "ready" is printed when clients may come.
"use strict";
const {
  OPCUAServer, OPCUACertificateManager, SecurityPolicy, MessageSecurityMode, Variant, DataType, VariantArrayType,
  StatusCodes, LocalizedText, AccessLevelFlag, nodesets,
} = require("node-opcua");
const fs = require("fs");
const path = require("path");
const readline = require("readline");

const o = Object.assign({
  port: 0, root: "", ticks: 20, every: 100, extra: 0, history: 0, limits: {}, bulk: 0,
}, JSON.parse(process.argv[2]));

const say = (line) => process.stdout.write("@@ " + line + "\n");

async function main() {
  const pki = (name) => {
    const m = new OPCUACertificateManager({ rootFolder: path.join(o.root, name), automaticallyAcceptUnknownCertificate: true });
    return m;
  };
  const server = new OPCUAServer({
    port: o.port, hostname: "127.0.0.1", host: "127.0.0.1", resourcePath: "",
    certificateFile: o.certificate, privateKeyFile: o.key,
    serverCertificateManager: pki("pki"), userCertificateManager: pki("users"),
    nodeset_filename: [nodesets.standard, path.join(__dirname, "types.xml")],
    serverInfo: { applicationUri: o.uri },
    securityPolicies: [
      SecurityPolicy.None, SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes128_Sha256_RsaOaep, SecurityPolicy.Aes256_Sha256_RsaPss,
    ],
    securityModes: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
    allowAnonymous: true,
    userManager: { isValidUser: (u, p) => u === "operator" && p === "s3cret" },
    serverCapabilities: { maxSessions: 100, operationLimits: o.limits },
    maxConnectionsPerEndpoint: 100,
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  space.installAlarmsAndConditionsService();
  for (let i = 0; i < o.extra; i++) space.registerNamespace("urn:holdfast:extra" + i);
  const ns = space.registerNamespace("urn:holdfast:test");
  const plant = ns.addObject({ organizedBy: space.rootFolder.objects, browseName: "Plant", nodeId: "s=Plant", eventSourceOf: space.rootFolder.objects.server, eventNotifier: 1 });
  const nodes = {};
  const add = (name, dataType, value, more) => {
    const v = ns.addVariable(Object.assign({
      componentOf: plant, browseName: name, nodeId: "s=" + name, dataType: DataType[dataType], minimumSamplingInterval: 10,
      accessLevel: "CurrentRead | CurrentWrite", userAccessLevel: "CurrentRead | CurrentWrite",
      value: more && more.value || new Variant({ dataType: DataType[dataType], arrayType: VariantArrayType.Scalar, value }),
    }, more));
    nodes[name] = v;
    return v;
  };
  const array = (name, dataType, value, dims) => add(name, dataType, null, {
    valueRank: dims ? dims.length : 1, arrayDimensions: dims || [value.length],
    value: new Variant({ dataType: DataType[dataType], arrayType: dims ? VariantArrayType.Matrix : VariantArrayType.Array, dimensions: dims, value }),
  });
  add("Boolean", "Boolean", true);
  add("SByte", "SByte", -5);
  add("Byte", "Byte", 200);
  add("Int16", "Int16", -1234);
  add("UInt16", "UInt16", 54321);
  add("Int32", "Int32", -123456789);
  add("UInt32", "UInt32", 4000000000);
  add("Int64", "Int64", [0xffffffff, 0xfffffffe]);
  add("UInt64", "UInt64", [0x80000000, 1]);
  add("Float", "Float", 1.25);
  add("Double", "Double", 0.1);
  add("String", "String", "grüß dich");
  add("DateTime", "DateTime", new Date("2024-05-31T12:00:00.250Z"));
  add("Guid", "Guid", "72962B91-FA75-4AE6-8D28-B404DC7DAF63");
  add("ByteString", "ByteString", Buffer.from([0, 1, 254, 255]));
  add("LocalizedText", "LocalizedText", new LocalizedText({ text: "valve", locale: "en" }));
  array("Doubles", "Double", new Float64Array([1, 2.5, -3]));
  array("Int16s", "Int16", new Int16Array([1, 2, 3, 4]));
  array("Strings", "String", ["a", "b\"c"]);
  array("Matrix", "Int32", new Int32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
  add("ReadOnly", "Int32", 7, { accessLevel: "CurrentRead", userAccessLevel: "CurrentRead" });
  add("Big", "String", "x".repeat(200000));
  const broken = add("Broken", "Double", 1);
  broken.setValueFromSource(new Variant({ dataType: DataType.Double, value: 1 }), StatusCodes.BadSensorFailure);

  const analog = ns.addAnalogDataItem({
    componentOf: plant, browseName: "Analog", nodeId: "s=Analog", dataType: "Double", minimumSamplingInterval: 0,
    engineeringUnitsRange: { low: -100, high: 300 },
    engineeringUnits: { displayName: "°C", unitId: 4408652, namespaceUri: "http://www.opcfoundation.org/UA/units/un/cefact", description: "degree Celsius" },
    value: new Variant({ dataType: DataType.Double, value: 20 }), accessLevel: "CurrentRead | CurrentWrite", userAccessLevel: "CurrentRead | CurrentWrite",
  });
  nodes.Analog = analog;

  const types = space.getNamespaceIndex("urn:holdfast:types");
  const structured = (name, typeName, value, array) => {
    const type = space.findDataType(typeName, types);
    const make = (v) => space.constructExtensionObject(type, v);
    ns.addVariable({
      componentOf: plant, browseName: name, nodeId: "s=" + name, dataType: type.nodeId, valueRank: array ? 1 : -1,
      value: new Variant({
        dataType: DataType.ExtensionObject, arrayType: array ? VariantArrayType.Array : VariantArrayType.Scalar,
        value: array ? value.map(make) : make(value),
      }),
    });
  };
  structured("Pump", "PumpType", { speed: 12.5, name: "P1", samples: [3, -4], position: { x: 1, y: -2 } });
  structured("Points", "PointType", [{ x: 1, y: 2 }, { x: 3, y: 4 }], true);
  structured("Recipe", "RecipeType", { step: 3, hot: true });

  // Values that count: a client that misses one sees the hole.
  const ticks = [];
  for (let i = 0; i < o.ticks; i++) ticks.push(add("Tick" + i, "Double", 0, { minimumSamplingInterval: 0 }));
  const history = add("History", "Double", 0, { accessLevel: "CurrentRead | CurrentWrite | HistoryRead", userAccessLevel: "CurrentRead | CurrentWrite | HistoryRead" });
  history.historizing = true;
  space.installHistoricalDataNode(history, { maxOnlineValues: 100000 });
  const bulk = [];
  for (let i = 0; i < o.bulk; i++) bulk.push(add("Bulk" + String(i).padStart(5, "0"), "Double", 0));
  let n = 0, running = true;
  setInterval(() => {
    if (!running) return;
    n++;
    const now = new Date();
    for (const t of [...ticks, history, ...bulk]) t.setValueFromSource({ dataType: DataType.Double, value: n }, StatusCodes.Good, now);
  }, o.every);

  const level = add("Level", "Double", 50);
  ns.instantiateExclusiveLimitAlarm("ExclusiveLimitAlarmType", {
    browseName: "LevelAlarm", conditionName: "LevelAlarm", conditionSource: plant, inputNode: level, conditionOf: plant, nodeId: "s=LevelAlarm",
    optionals: ["ConfirmedState", "Confirm"],
    highHighLimit: 90, highLimit: 75, lowLimit: 20, lowLowLimit: 5,
  });
  const method = ns.addMethod(plant, {
    browseName: "Multiply", nodeId: "s=Multiply",
    inputArguments: [{ name: "a", dataType: DataType.Int32 }, { name: "b", dataType: DataType.Double }],
    outputArguments: [{ name: "product", dataType: DataType.Double }],
  });
  method.bindMethod((inputs, context, done) => {
    done(null, { statusCode: StatusCodes.Good, outputArguments: [{ dataType: DataType.Double, value: inputs[0].value * inputs[1].value }] });
  });
  const many = ns.addObject({ organizedBy: plant, browseName: "Many", nodeId: "s=Many" });
  for (let i = 0; i < 2500; i++) ns.addObject({ organizedBy: many, browseName: "Node" + i, nodeId: "s=Many" + i });
  many.addReference({ referenceType: "Organizes", nodeId: plant.nodeId }); // a cycle
  const view = ns.addView({ organizedBy: space.rootFolder.views, browseName: "TestView", nodeId: "s=TestView" });
  view.addReference({ referenceType: "Organizes", nodeId: plant.nodeId });

  await server.start();
  say("ready");

  readline.createInterface({ input: process.stdin }).on("line", async (line) => {
    const c = JSON.parse(line);
    switch (c.do) {
      case "set":
        nodes[c.node].setValueFromSource({ dataType: nodes[c.node].dataTypeObj ? DataType[nodes[c.node].dataTypeObj.browseName.name] : DataType.Double, value: c.value }, StatusCodes.Good, new Date());
        break;
      case "get":
        say(JSON.stringify(nodes[c.node].readValue().value.value));
        return;
      case "run": running = c.on; break;
      case "event":
        plant.raiseEvent("BaseEventType", { message: { dataType: DataType.LocalizedText, value: { text: c.text } }, severity: { dataType: DataType.UInt16, value: c.severity || 500 } });
        break;
      case "count": say(String(n)); return;
      case "sessions": say(String(server.engine.currentSessionCount)); return;
      case "drop":
        for (const s of Object.values(server.engine._sessions)) server.engine.closeSession(s.authenticationToken, true, "Terminated");
        break;
      case "quit": await server.shutdown(c.after || 0); say("bye"); process.exit(0);
    }
    say("ok");
  }).on("close", () => process.exit(0));
}
main().catch((e) => { process.stderr.write(String(e && e.stack) + "\n"); process.exit(1); });
