package max31865

import "math"

// The coefficients of platinum after IEC 60751:2022 (alpha = 0.003851), as the
// data sheet prints them (page 19): the Callendar-Van Dusen equation
//
//	R(t) = R0 (1 + a t + b t^2 + c (t - 100) t^3), c = 0 for t >= 0
const (
	cvdA = 3.90830e-3
	cvdB = -5.77500e-7
	cvdC = -4.18301e-12
)

// The range for which IEC 60751 gives the equation, in Cel.
const (
	leastCelsius = -200
	mostCelsius  = 850
)

// ratio returns R(t)/R0.
func ratio(t float64) float64 {
	r := 1 + t*(cvdA+t*cvdB)
	if t < 0 {
		r += cvdC * (t - 100) * t * t * t
	}
	return r
}

// celsius returns the temperature at which R/R0 is r. It is the inverse of ratio
// to better than 1e-9 Cel in the range of the standard, and goes on steadily
// beyond, so that what is out of range is seen to be.
func celsius(r float64) float64 {
	// Above 0 Cel the equation is a quadratic one.
	root := cvdA*cvdA - 4*cvdB*(1-r)
	if root < 0 {
		return math.NaN() // above 3300 Cel
	}
	t := (-cvdA + math.Sqrt(root)) / (2 * cvdB)
	if t >= 0 {
		return t
	}
	// Below, that is 2.4 Cel too low at -200 and Newton's method doubles the right
	// digits in each step.
	for range 6 {
		slope := cvdA + 2*cvdB*t + cvdC*(4*t-300)*t*t
		t -= (ratio(t) - r) / slope
	}
	return t
}
