package plant

import (
	"holdfast/drivers/i2c/i2ctest"
)

// Addresses of the chips on the factory's sensor bus.
const (
	AmbientAddr = 0x76 // BME280: air in the room
	TankAddr    = 0x18 // MCP9808: wall of the tank
	MotorAddr   = 0x48 // LM75: case of the motor
	LoopAddr    = 0x49 // ADS1115: level and current as 4 to 20 mA loops
)

// LoopOhms is the resistor across which the converter sees a current loop.
const LoopOhms = 100.0

// Sensors are emulated chips on an I2C bus that show the process.
type Sensors struct {
	Bus *i2ctest.Bus

	ambient *i2ctest.BME280
	tank    *i2ctest.MCP9808
	motor   *i2ctest.LM75
	loop    *i2ctest.ADS1115
}

// NewSensors returns a bus with four chips. They show nothing of the process
// before the first Show.
func NewSensors() *Sensors {
	s := &Sensors{
		Bus:     i2ctest.NewBus("plant"),
		ambient: i2ctest.NewBME280(i2ctest.TypicalBME280()),
		tank:    i2ctest.NewMCP9808(),
		motor:   i2ctest.NewLM75(),
		loop:    i2ctest.NewADS1115(),
	}
	s.Bus.Put(AmbientAddr, s.ambient)
	s.Bus.Put(TankAddr, s.tank)
	s.Bus.Put(MotorAddr, s.motor)
	s.Bus.Put(LoopAddr, s.loop)
	return s
}

// Show makes the chips measure a state of the process.
func (s *Sensors) Show(p State) {
	s.ambient.Set(p.Ambient, p.Barometer*1000, p.Humidity)
	s.tank.Set(p.Temperature)
	s.motor.Set(p.Ambient + 4*p.Current)
	s.loop.Set(0, LoopVolts(p.Level, TankHeight))
	s.loop.Set(1, LoopVolts(p.Current, 20))
}

// LoopVolts is what LoopOhms shows of a transmitter that maps 0 to full onto 4
// to 20 mA (IEC 60381-1).
func LoopVolts(x, full float64) float64 {
	return (4e-3 + 16e-3*limit(x/full, 0, 1)) * LoopOhms
}
