// Package modbus simulates Modbus field devices that can be made to misbehave:
// the opposite side for tests of protocols/modbus and for demonstrations. It
// shares no code with the adapter.
//
// A [Plant] holds units, each a [Device] with the four tables of the Modbus data
// model, and serves them over TCP, on a line with RTU framing paced to a baud
// rate, or with RTU framing over TCP. A [Fault] picks requests and says what goes
// wrong with their answers. Everything is safe for use by many goroutines, and
// what is random follows the plant's seed.
package modbus
