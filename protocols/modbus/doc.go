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
//
// # Settings of a device
//
// Durations are texts with a unit. What is not given has the value in brackets.
//
//	transport            tcp, rtu or rtu-over-tcp [tcp]
//	address              host or host:port, for TCP [port 502]
//	port                 device file of the serial line, better one in /dev/serial/by-id
//	baud parity stop_bits    of the line [19200, even, 1; 2 with parity "none"]
//	rs485 rts_before rts_after    the kernel switches the transmitter by RTS [false, 0s, 0s]
//	echo                 the line brings back what is sent [false]
//	unit                 unit id, 0 on a line being broadcast [1]
//	ignore_unit_id       take answers whatever unit they name [false]
//	order                of bytes, for all numbers [ABCD]
//	timeout              for the start of an answer [1s; 500ms on a line]
//	worst_answer         latest that an answer to a request can come, for RTU [2 * timeout]
//	turnaround           pause after a broadcast [150ms]
//	max_registers max_bits    most that the device lets read at once [125, 2000]
//	max_write_registers  most that it lets write at once [123]
//	max_gap max_gap_bits    most items nobody asked for in one request [32, or 8 on a line; 16 * max_gap]
//	write_function       auto: functions 5, 6 and 16; multiple: 15 and 16; read_write: 23 for registers [auto]
//	mask_write           the device has function 22, for parts of registers [false]
//	busy_retries busy_pause    after exceptions 5 and 6 [3, 100ms]
//	demote_after probe_max    time-outs until a silent unit is held back; longest pause between tries [2, 30s]
//
// These belong to the link; of devices that share one, the first one's hold:
//
//	connect_timeout keep_alive    of TCP [3s, 15s]
//	connect_delay        pause between connecting and the first request [0s]
//	reconnect_min reconnect_max    pause after connecting failed, doubling [250ms, 30s]
//	request_pause        between an answer and the next request [0s]
//	idle_close           close a connection unused for so long; 0s for never [0s]
//	close_after_read     close after each read of a group [false]
//	pipeline             requests under way at once, 1 to 16, for TCP [1]
package modbus
