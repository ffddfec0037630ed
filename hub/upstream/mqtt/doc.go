// Package mqtt sends records to an MQTT broker.
//
// A record travels as it is stored, in one publish of QoS 1; or many records
// travel in one publish when batching is on (package batch); or a record that
// holds readings becomes messages in a form that others read, one for the whole
// batch or one for each reading. The broker's PUBACK confirms. What a reason code
// of 0x80 and above means is in [Permanent]: a few of them are about the message
// itself and final, all others may pass.
//
// # Topics
//
// A topic is made by a template: text with names in braces.
//
//	{topic}     the record's topic; {topic[0]} is its first level, {topic[-1]} its last,
//	            {topic[1:]} all but the first, {topic[1:3]} the second and third
//	{sender}    who published it
//	{gateway}   this gateway
//
// and for readings
//
//	{device}    the field device
//	{path}      where it stands in the plant, as configured; {path[0]} and so on as with topic
//	{enterprise} {site} {area} {line} {cell}   the first to fifth level of the path
//	{tag} {unit} {class}                       of a reading that is a message of its own
//
// "/", "+", "#" and "%" in a name that is one level are percent-encoded, so that it
// stays one level and can be told from any other. A level that is made of names
// alone and comes out empty is left out with its slash; {unit|none} puts "none"
// there instead. So "{path}/{device}/{tag}" is a unified namespace:
// acme/site1/area2/press7/temperature.
//
// # Readings
//
// What knows readings is handed in ([Readings]); a record that holds none travels
// as stored. Several messages made of one record are sent in their order and
// before those of the next record, and the record is settled as one when all are
// answered: confirmed when all were confirmed; to be sent again as a whole when
// one failed in a way that may pass, and then what was not sent yet is not sent;
// rejected when one was refused for good, after all the others were sent. The
// window counts messages, not records, and the messages of one record are made as
// there is room for them.
//
// # Properties
//
// With MQTT 5 a record keeps its properties, response topic and correlation data
// among them, and its message expiry is what is left of it. The user properties
// holdfast-epoch and holdfast-offset (decimal), with holdfast-index (from 0) when
// a record became several messages, let the far side drop what a lost link or a
// crash made it get twice. A payload that was compressed has the user property
// content-encoding with the value zstd. Messages made of readings have the
// content type and the payload format of their form in place of the record's, and
// on request the user properties quality and unit. Topics are sent as aliases
// where the broker allows it.
package mqtt
