// Package plant is a small factory that does not exist: a tank with a pump, a
// heater and an outlet valve, whose values move the way such values move.
//
// [Process] is the physics, pure and seeded. The field devices that show it to
// a gateway (Modbus servers, sensors on an emulated bus) read it and write its
// set points.
package plant

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Process is the state of the factory. Its methods may be called from many
// goroutines. Units are SI with temperatures in degrees Celsius, pressures in
// kPa and angles in per cent of full travel.
type Process struct {
	mu    sync.Mutex
	noise *rand.Rand
	set   Setpoints
	s     State
	left  time.Duration // elapsed time not yet simulated
}

// Setpoints are what a control system writes.
type Setpoints struct {
	Run    bool    // the pump's contactor
	Speed  float64 // of the pump, 1/min, 0 to MaxSpeed
	Valve  float64 // the outlet, 0 to 100 %
	Heater float64 // 0 to 100 % of HeaterPower
}

// State is what instruments show.
type State struct {
	Elapsed     time.Duration // since the start of the simulation
	Level       float64       // m, 0 to TankHeight
	Inflow      float64       // L/min
	Outflow     float64       // L/min
	Temperature float64       // of the tank, degC
	Pressure    float64       // at the pump, kPa above ambient
	Speed       float64       // of the pump, 1/min
	Current     float64       // of the motor, A
	Vibration   float64       // of the bearing, mm/s RMS
	Ambient     float64       // degC
	Humidity    float64       // per cent
	Barometer   float64       // kPa absolute
	Volume      float64       // pumped since the start, L
	HighLevel   bool          // float switch at 90 %
	LowLevel    bool          // float switch at 10 %
}

// The dimensions of the factory.
const (
	TankHeight  = 2.0    // m
	TankArea    = 0.5    // m^2
	MaxSpeed    = 3000.0 // 1/min
	FullFlow    = 120.0  // L/min at MaxSpeed
	HeaterPower = 24e3   // W

	step          = 20 * time.Millisecond
	motorLag      = 1.5                      // s, time constant of the drive
	waterHeat     = 4186.0                   // J/(kg K) at 1 kg/L
	wallLoss      = 60.0                     // W/K from the tank to the room
	valveGain     = FullFlow / 1.2           // L/min at full travel and 1.44 m of head
	supply        = 12.0                     // degC of the water that comes in
	litresPerCube = 1000.0                   // L/m^3
	gravityHead   = 9.81                     // kPa per m of water
	dayNight      = 2 * math.Pi / (20 * 60.) // rad/s: a "day" of twenty minutes
)

// NewProcess returns a factory that runs at an operating point. The same seed
// gives the same noise.
func NewProcess(seed uint64) *Process {
	return &Process{
		noise: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)),
		set:   Setpoints{Run: true, Speed: 1450, Valve: 50, Heater: 30},
		s:     State{Level: 1.2, Temperature: 21, Ambient: 21, Humidity: 45, Barometer: 101.3},
	}
}

// Set changes the set points; values beyond their range are brought into it.
func (p *Process) Set(change func(*Setpoints)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.set)
	p.set.Speed = limit(p.set.Speed, 0, MaxSpeed)
	p.set.Valve = limit(p.set.Valve, 0, 100)
	p.set.Heater = limit(p.set.Heater, 0, 100)
}

// Read returns the state and the set points.
func (p *Process) Read() (State, Setpoints) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.s, p.set
}

// Advance simulates d more.
func (p *Process) Advance(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.left += d; p.left >= step; p.left -= step {
		p.advance(step.Seconds())
	}
}

func (p *Process) advance(dt float64) {
	s, set := &p.s, &p.set
	s.Elapsed += step

	target := 0.0
	if set.Run {
		target = set.Speed
	}
	s.Speed += (target - s.Speed) * dt / motorLag
	turn := s.Speed / MaxSpeed

	s.Inflow = FullFlow * turn
	s.Outflow = valveGain * set.Valve / 100 * math.Sqrt(max(0, s.Level))
	litres := s.Level * TankArea * litresPerCube
	gain := (s.Inflow - s.Outflow) / 60 * dt
	s.Level = limit((litres+gain)/(TankArea*litresPerCube), 0, TankHeight)
	s.Volume += s.Inflow / 60 * dt

	// Heat: what the heater gives, what the room takes, what cold water dilutes.
	mass := max(litres, 5)
	watts := HeaterPower*set.Heater/100 - wallLoss*(s.Temperature-s.Ambient)
	s.Temperature += (watts*dt/waterHeat + s.Inflow/60*dt*(supply-s.Temperature)) / mass
	s.Temperature = limit(s.Temperature, 0, 100)

	s.Pressure = 250*turn*turn + gravityHead*s.Level + p.jitter(0.2)
	s.Current = 0
	if set.Run || s.Speed > 1 {
		s.Current = 1.8 + 9*turn*turn*turn + 0.02*(target-s.Speed)*dt + p.jitter(0.03)
	}
	s.Vibration = 0.3 + 2.2*turn*turn + math.Abs(p.jitter(0.15))

	day := math.Sin(s.Elapsed.Seconds() * dayNight)
	s.Ambient = 21 + 2*day
	s.Humidity = 45 - 6*day + p.jitter(0.05)
	s.Barometer = 101.3 + 0.2*math.Sin(s.Elapsed.Seconds()*dayNight/3)

	s.HighLevel = s.Level > 0.9*TankHeight
	s.LowLevel = s.Level < 0.1*TankHeight
}

// jitter is the noise of an instrument with the given standard deviation.
func (p *Process) jitter(sigma float64) float64 { return p.noise.NormFloat64() * sigma }

func limit(x, low, high float64) float64 { return min(max(x, low), high) }
