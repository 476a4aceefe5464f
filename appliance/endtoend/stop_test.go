package endtoend

import (
	"fmt"
	"testing"

	"mailchute/appliance/trace"
	"mailchute/cmd/cloudsim/sim"
)

// TestStop stops the box in order, five times under load: what is in the air is finished. Nothing is lost, and nothing
// comes twice.
func TestStop(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	fuse := &fuse{}
	floor := newFloor(fuse, random)
	for life := range 5 {
		cloud.nextEpoch()
		burnt := fuse.light(dotted, 1+random.IntN(50))
		box.start()
		watched := floor.watch(box, life+1)
		floor.open(box.address("none"))
		<-burnt
		floor.close()
		box.stop()
		<-watched
	}
	floor.leave()
	cloud.nextEpoch()
	box.start()
	box.awaitEmpty()
	if count := floor.check(t, cloud, box); count["arrived again"] > 0 {
		t.Errorf("%d messages have arrived again", count["arrived again"])
	}
	box.stop()
}

// TestStopWaitsNoLongerThanItMay: neither a cloud that does not answer nor a device that does not go on holds up the end
// for more than 20 s. The message is sent at the next start; the device was told nothing and still has its own.
func TestStopWaitsNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	box.start()
	cloud.fail("final=stall")
	name, id := hand(box, "stalled", 50_000)
	<-cloud.met
	device, err := connect(box.address("none"))
	if err != nil {
		t.Fatal(err)
	}
	defer device.close()
	if err := device.envelope(from, to); err != nil {
		t.Fatal(err)
	}
	half, content := letter("half", 50_000)
	device.conn.Write(content[:25_000])
	box.stop()
	if _, err := device.acknowledged(); err == nil {
		t.Error("half a message was acknowledged")
	}
	cloud.fail()
	box.start()
	sentOnce(box, cloud, letters{name: id})
	if records := allRecords(t, box); records[half].ID != 0 || len(records) != 1 {
		t.Errorf("the trace has %+v", records)
	}
	box.stop()
}

// TestQuit: how a cloud takes leave is of no consequence.
func TestQuit(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	for i, way := range append([]string{"4xx", "5xx"}, breaks...) {
		cloud.fail("quit=" + way)
		box.start()
		name, id := hand(box, fmt.Sprint(i), 1000)
		sentOnce(box, cloud, letters{name: id})
		left := make(chan struct{})
		go func() {
			defer close(left)
			if fault := <-cloud.met; fault.Action == sim.Stall {
				cloud.server.Cut()
			}
		}()
		box.stop()
		<-left
		box.start()
		if record := box.record(id); record.Recipients[0].State != trace.Sent || countEvents(record, trace.Delivered) != 1 {
			t.Errorf("after QUIT was answered by %s: %+v", way, record)
		}
		box.stop()
	}
}
