// An OPC UA server for measurements: COUNT doubles that all change every PERIOD
// milliseconds, without security. It ends when its standard input does.
//
//   node opcua.js PORT COUNT PERIOD FOLDER
"use strict";
const { OPCUAServer, OPCUACertificateManager, SecurityPolicy, MessageSecurityMode, Variant, DataType, StatusCodes } = require("node-opcua");
const path = require("path");
const [port, count, period, folder] = [+process.argv[2], +process.argv[3], +process.argv[4], process.argv[5]];

async function main() {
  const manager = (name) => new OPCUACertificateManager({ rootFolder: path.join(folder, name), automaticallyAcceptUnknownCertificate: true });
  const server = new OPCUAServer({
    port, hostname: "127.0.0.1", host: "127.0.0.1", resourcePath: "",
    serverCertificateManager: manager("pki"), userCertificateManager: manager("users"),
    securityPolicies: [SecurityPolicy.None], securityModes: [MessageSecurityMode.None], allowAnonymous: true,
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const ns = space.registerNamespace("urn:holdfast:bench");
  const plant = ns.addObject({ organizedBy: space.rootFolder.objects, browseName: "Plant", nodeId: "s=Plant" });
  const nodes = [];
  for (let i = 0; i < count; i++) {
    const name = "T" + String(i).padStart(4, "0");
    nodes.push(ns.addVariable({
      componentOf: plant, browseName: name, nodeId: "s=" + name, dataType: DataType.Double, minimumSamplingInterval: 10,
      value: new Variant({ dataType: DataType.Double, value: 0 }),
    }));
  }
  await server.start();
  let n = 0;
  setInterval(() => {
    const now = new Date();
    n++;
    for (const v of nodes) v.setValueFromSource({ dataType: DataType.Double, value: n + 0.5 }, StatusCodes.Good, now);
  }, period);
  process.stdin.on("end", () => process.exit(0)).resume();
}
main().catch((e) => { process.stderr.write(String(e && e.stack) + "\n"); process.exit(1); });
