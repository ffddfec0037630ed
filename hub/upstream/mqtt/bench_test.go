package mqtt_test

import (
	"sync"
	"testing"

	"holdfast/hub"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/mqtt"
)

// BenchmarkSend sends records of 1 KiB, 1000 in flight, over TCP to a server in
// the same process that does nothing but confirm.
func BenchmarkSend(b *testing.B) {
	for name, o := range map[string]mqtt.Options{
		"plain":      {Identify: true},
		"batch":      {Batch: true},
		"batch+zstd": {Batch: true, Compress: true},
	} {
		b.Run(name, func(b *testing.B) {
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
			payload := make([]byte, 1024)
			for i := range payload {
				payload[i] = byte(i * i >> 3)
			}
			out := &hub.Outgoing{Record: hub.Record{Sender: []byte("s"), Topic: []byte("plant/line1/boiler"), Payload: payload}, Epoch: 1}
			window := make(chan struct{}, 1000)
			var wg sync.WaitGroup
			settled := func(err error) {
				<-window
				wg.Done()
			}
			b.SetBytes(1024)
			b.ReportAllocs()
			for b.Loop() {
				window <- struct{}{}
				wg.Add(1)
				if err := l.Send(out, settled); err != nil {
					b.Fatal(err)
				}
			}
			wg.Wait()
		})
	}
}
