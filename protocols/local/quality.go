package local

import (
	"context"
	"errors"
	"io/fs"

	"holdfast/drivers/gpio"
	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
	"holdfast/drivers/spi"
	"holdfast/protocols/point"
)

// qualityOf tells the quality that an error of the hardware means.
func qualityOf(err error) point.Quality {
	for _, q := range []struct {
		err     error
		quality point.Quality
	}{
		{errClosed, point.BadConnectionClosed},
		{errNoChannel, point.BadConfigurationError},
		{errNoEdges, point.BadWaitingForInitialData},
		{gpio.ErrNoLine, point.BadConfigurationError},
		{gpio.ErrBusy, point.BadResourceUnavailable},
		{gpio.ErrGone, point.BadNoCommunication},
		{gpio.ErrStuck, point.BadTimeout},
		{sensor.ErrIdentity, point.BadConfigurationError},
		{sensor.ErrImplausible, point.BadSensorFailure},
		{sensor.ErrNotReady, point.BadSensorFailure},
		{sensor.ErrRange, point.BadOutOfRange},
		{sensor.ErrFault, point.BadSensorFailure},
		{sensor.ErrRefused, point.BadOutOfRange},
		{sensor.ErrStuck, point.BadTimeout},
		{fs.ErrNotExist, point.BadNoCommunication},
		{spi.ErrTimeout, point.BadTimeout},
		{spi.ErrStuck, point.BadTimeout},
		{i2c.ErrNACK, point.BadNoCommunication},
		{i2c.ErrGone, point.BadNoCommunication},
		{i2c.ErrTimeout, point.BadTimeout},
		{i2c.ErrStuck, point.BadTimeout},
		{i2c.ErrArbitration, point.BadCommunicationError},
		{context.DeadlineExceeded, point.BadTimeout},
		{context.Canceled, point.BadTimeout},
	} {
		if errors.Is(err, q.err) {
			return q.quality
		}
	}
	return point.BadDeviceFailure
}

func failure(err error) point.Sample {
	return point.Sample{Quality: qualityOf(err), Detail: err.Error()}
}
