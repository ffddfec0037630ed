// Package mqtt sends records to an MQTT broker.
//
// Each record is one publish of QoS 1, or many records are one publish when
// batching is on; the broker's PUBACK confirms them. What a reason code of
// 0x80 and above means is in [Permanent]: a few of them are about the message
// itself and final, all others may pass.
//
// With MQTT 5 a record keeps its properties, its message expiry is what is left
// of it, and the user properties holdfast-epoch and holdfast-offset (decimal)
// let the far side drop what a lost link or a crash made it get twice. A payload
// that was compressed has the user property content-encoding with the value zstd.
package mqtt
