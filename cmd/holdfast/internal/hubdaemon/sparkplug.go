package hubdaemon

import (
	"fmt"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/drivers/disk"
	"holdfast/hub"
	"holdfast/hub/upstream/sparkplug"
	sparkvalue "holdfast/hub/upstream/sparkplug/payload"
	"holdfast/protocols/point"
)

// Sparkplug returns what the edge node of an upstream has from the hub: batches
// of readings, what is configured about tags, and the number of its births,
// which is kept in the data directory. Commands are the caller's to add.
func (t *Tags) Sparkplug(c *config.Config, upstream, version string) (sparkplug.Means, error) {
	fs, err := disk.OpenHost(DataDir(c))
	if err != nil {
		return sparkplug.Means{}, fmt.Errorf("birth number: %w", err)
	}
	return sparkplug.Means{
		Decode:     decodeBatch,
		Devices:    func() []sparkplug.Device { return t.index.Load().edge },
		Properties: map[string]string{"Software": "Holdfast", "Version": version},
		Ledger:     sparkplug.FileLedger{FS: fs, Name: "births-" + upstream},
	}, nil
}

// decodeBatch implements sparkplug.Decoder for what the field daemon publishes.
func decodeBatch(r *hub.Record, b *sparkplug.Batch) error {
	var batch point.Batch
	if err := point.DecodeBatch(r.Payload, &batch); err != nil {
		return fmt.Errorf("it is no batch of readings: %w", err)
	}
	b.Device, b.Readings = batch.Device, b.Readings[:0]
	for i := range batch.Readings {
		from := &batch.Readings[i]
		to := sparkplug.Reading{Tag: from.Tag, Value: edgeValue(from.Value), Quality: uint32(from.Quality), Detail: from.Detail, Time: from.Source}
		if to.Time.IsZero() {
			to.Time = from.Receive
		}
		b.Readings = append(b.Readings, to)
	}
	return nil
}

// edgeValue returns a value as Sparkplug carries it.
func edgeValue(v point.Value) sparkvalue.Value {
	switch v.Kind() {
	case point.Bool:
		return sparkvalue.BoolValue(v.Bool())
	case point.Int:
		return sparkvalue.IntValue(v.Int())
	case point.Uint:
		return sparkvalue.UintValue(v.Uint())
	case point.Float32:
		f, _ := v.Float()
		return sparkvalue.FloatValue(float32(f))
	case point.Float:
		f, _ := v.Float()
		return sparkvalue.DoubleValue(f)
	case point.String:
		return sparkvalue.StringValue(v.Text())
	case point.Bytes:
		return sparkvalue.BytesValue(append([]byte(nil), v.Raw()...))
	}
	return sparkvalue.Value{}
}

// PointValue returns a value that came by Sparkplug as field devices take it.
func PointValue(v sparkvalue.Value) point.Value {
	f, _ := v.Double()
	switch v.Kind() {
	case sparkvalue.BoolKind:
		return point.BoolValue(v.Bool())
	case sparkvalue.IntKind:
		return point.IntValue(v.Int())
	case sparkvalue.UintKind:
		return point.UintValue(v.Uint())
	case sparkvalue.FloatKind:
		return point.Float32Value(float32(f))
	case sparkvalue.DoubleKind:
		return point.FloatValue(f)
	case sparkvalue.StringKind:
		return point.StringValue(string(v.Raw()))
	case sparkvalue.BytesKind:
		return point.BytesValue(append([]byte(nil), v.Raw()...))
	}
	return point.Value{}
}

// edgeDevice is a field device as an edge node tells it.
func edgeDevice(d *config.Device) sparkplug.Device {
	e := sparkplug.Device{Name: d.Name}
	for i := range d.Tags {
		t := &d.Tags[i]
		e.Tags = append(e.Tags, sparkplug.Tag{Name: t.Name, Datatype: edgeType(t), Unit: t.Unit, Writable: t.Access.Writable()})
	}
	return e
}

// edgeType returns the datatype of a tag as far as its type, in the words of its
// protocol, says it for certain; of others it is learned from the first value.
func edgeType(t *point.Tag) sparkvalue.Datatype {
	d := sparkvalue.Unknown
	switch t.Type {
	case "bool", "Boolean":
		d = sparkvalue.Boolean
	case "int8", "SByte":
		d = sparkvalue.Int8
	case "int16", "Int16":
		d = sparkvalue.Int16
	case "int32", "Int32":
		d = sparkvalue.Int32
	case "int64", "Int64":
		d = sparkvalue.Int64
	case "uint8", "Byte":
		d = sparkvalue.UInt8
	case "uint16", "UInt16":
		d = sparkvalue.UInt16
	case "uint32", "UInt32":
		d = sparkvalue.UInt32
	case "uint64", "UInt64":
		d = sparkvalue.UInt64
	case "float32", "Float":
		d = sparkvalue.Float
	case "float64", "Double":
		d = sparkvalue.Double
	}
	// A scaled number is one of double precision, whatever it is in the device.
	if d != sparkvalue.Boolean && d != sparkvalue.Unknown && !t.Scale.Identity() {
		return sparkvalue.Double
	}
	return d
}
