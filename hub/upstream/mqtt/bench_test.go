package mqtt_test

import (
	"bytes"
	"sync"
	"testing"

	"holdfast/hub"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/mqtt"
)

// BenchmarkSend sends records of 1 KiB, 1000 in flight, over TCP to a server in
// the same process that does nothing but confirm.
func BenchmarkSend(b *testing.B) {
	payload := make([]byte, 1024)
	for i := range payload {
		payload[i] = byte(i * i >> 3)
	}
	for name, o := range map[string]mqtt.Options{
		"plain":      {Identify: true},
		"batch":      {Batch: true},
		"batch+zstd": {Batch: true, Compress: true},
	} {
		b.Run(name, func(b *testing.B) { benchmark(b, o, payload, 1) })
	}
}

// BenchmarkSpread sends records of a hundred lines that become a message each;
// what makes payloads of readings is measured in its own package.
func BenchmarkSpread(b *testing.B) {
	payload := bytes.Repeat([]byte(`temperature={"value":21.5,"quality":"Good","time":1760000000123456}`+"\n"), 100)
	env, form := mqtt.Env{Readings: newSplit}, mqtt.Form{Payload: "json", PerReading: true}
	for name, o := range map[string]mqtt.Options{
		"bare":     {Env: env, Form: form},
		"aliases":  {Env: env, Form: form, Aliases: 100},
		"identify": {Env: env, Form: form, Aliases: 100, Identify: true},
		"all":      {Env: env, Form: form, Aliases: 100, Identify: true, Annotate: true},
	} {
		b.Run(name, func(b *testing.B) { benchmark(b, o, payload, 100) })
	}
}

func benchmark(b *testing.B, o mqtt.Options, payload []byte, messages int) {
	o.URL = clienttest.StartSink(b)
	up, err := mqtt.New(o)
	if err != nil {
		b.Fatal(err)
	}
	l, err := up.Connect(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	out := &hub.Outgoing{Record: hub.Record{Sender: []byte("s"), Topic: []byte("plant/line1/boiler"), Payload: payload}, Epoch: 1}
	window := make(chan struct{}, 1000)
	var wg sync.WaitGroup
	settled := func(err error) {
		<-window
		wg.Done()
	}
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		window <- struct{}{}
		wg.Add(1)
		if err := l.Send(out, settled); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*messages), "ns/message")
}
