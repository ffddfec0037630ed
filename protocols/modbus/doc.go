// Package modbus is the adapter for Modbus TCP, Modbus RTU on a serial line and
// RTU framing over TCP (serial device servers), as a client.
//
// Clauses cited here are those of "MODBUS Application Protocol Specification
// V1.1b3" (cited as "AP"), "MODBUS Messaging on TCP/IP Implementation Guide
// V1.0b" ("TCP") and "MODBUS over Serial Line Specification and Implementation
// Guide V1.02" ("SL").
//
// # What is promised
//
//   - No answer is taken for the answer to another request. On TCP the
//     transaction id tells them apart. RTU has none, so after a time-out the
//     line is drained until the answer owed has come, or until the field device
//     can no longer give it (setting worst_answer), before anything else is sent.
//   - Function, unit id and byte count of every answer are compared with the request.
//   - A TCP connection is closed after every error except an exception answer,
//     which is an answer, and made again with back-off and jitter.
//   - All field devices behind one host:port or serial line share one link. On
//     it writes go before reads, and reads take turns.
//   - A field device that does not answer costs the others on its link a
//     bounded share of the time (see unit).
//   - A value that spans several registers is read and written in one request.
//
// # Addresses
//
// A tag's address names a table and an item in it:
//
//	holding:100  input:100  coil:7  discrete:7   counted from 0, as on the wire
//	hr:100       ir:100     co:7    di:7         the same, shorter
//	holding:0x64                                 hexadecimal
//	40101   30101   00008   10008                data model numbers, counted from 1, five digits
//	400101  300101  000008  100008               the same with six digits, up to 465536
//	holding:100.3  40101.3                       bit 3 of a register, 0 (least significant) to 15
//
// # Types
//
//	bool                               a coil, a discrete input or a bit of a register
//	int16 uint16                       one register
//	int8h uint8h int8l uint8l          the high or the low byte of one register
//	int32 uint32 float32 bcd32         two registers
//	int64 uint64 float64               four registers
//	float16 bcd16                      one register
//	string(n) bytes(n)                 n bytes, 1 to 250, in (n+1)/2 registers
//
// The default is bool for coils, discrete inputs and bits, else uint16. The tag
// parameter order, and the device's setting of the same name for numbers, say
// how bytes stand on the wire, A being the most significant: ABCD (the default),
// DCBA, BADC (bytes swapped in each register), CDAB (registers swapped), or the
// eight-letter forms ABCDEFGH, HGFEDCBA, BADCFEHG, GHEFCDAB. A one-register
// value takes the byte order in its register: AB for ABCD and CDAB, BA for the
// others. Strings and bytes take AB or BA from the tag only.
package modbus
