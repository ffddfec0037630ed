// Decodes messages of the payload forms with decoders that others wrote.
//
//   node decode.js cbor|protobuf readings.proto < lines of hexadecimal
//
// For each line it prints one line of JSON in which every item says what it is,
// so that nothing is lost: see canonical below.
'use strict'
const cbor = require('cbor')
const protobuf = require('protobufjs')

function double(x) {
  const b = Buffer.alloc(8)
  b.writeDoubleBE(x)
  return 'number:' + (Number.isNaN(x) ? 'NaN' : b.toString('hex'))
}

function canonical(v) {
  if (v === null || v === undefined) return 'null'
  if (typeof v === 'boolean') return 'bool:' + v
  if (typeof v === 'bigint') return 'int:' + v
  if (typeof v === 'number') return double(v)
  if (typeof v === 'string') return 'text:' + v
  if (Buffer.isBuffer(v) || v instanceof Uint8Array) return 'bytes:' + Buffer.from(v).toString('hex')
  if (Array.isArray(v)) return v.map(canonical)
  if (v instanceof cbor.Tagged) return 'tag' + v.tag + ':' + canonical(v.value)
  const entries = v instanceof Map ? [...v.entries()] : Object.entries(v)
  return Object.fromEntries(entries.map(([k, x]) => [k, canonical(x)]))
}

const [form, schema] = process.argv.slice(2)
let decode
if (form === 'cbor') {
  const tags = { 0: (v) => new cbor.Tagged(0, v) } // the text, not a Date without microseconds
  decode = (b) => cbor.decodeFirstSync(b, { tags, required: true })
} else {
  const Batch = protobuf.loadSync(schema).lookupType('holdfast.readings.v1.Batch')
  const out = { longs: String, enums: String, bytes: Buffer, defaults: false, arrays: true, oneofs: true }
  decode = (b) => Batch.toObject(Batch.decode(b), out)
}
for (const line of require('fs').readFileSync(0, 'latin1').split('\n')) {
  if (line) console.log(JSON.stringify(canonical(decode(Buffer.from(line, 'hex')))))
}
