// Package sparkplug is a Sparkplug B edge node (Eclipse Sparkplug specification
// 3.0.0) as an upstream: the gateway is the edge node, its field devices are the
// node's devices, their tags the metrics.
//
// # What is sent
//
// A link is up when the node is born: NBIRTH, then one DBIRTH for every device
// that lives. Each record is one DDATA (NDATA for the node itself), or several
// where it is large. A device or metric that is new, or a value that does not
// fit the datatype told before, makes a birth first. A device whose known values
// are all bad, at least one of them for want of communication, dies (DDEATH) and
// is born again by its next value; [Options.DeviceTimeout] does the same for one
// that says nothing.
//
// What the gateway knows of datatypes and units comes from the configuration
// ([Means.Devices]), so that births are complete from the start. What is not
// configured is learned from records. A tag of 32 bits without sign is told as
// UInt64, because implementations disagree about UInt32. Values keep their OPC UA status code in the
// property opcuaStatus beside the specification's Quality.
//
// A value is flagged historical when it was received before this session began,
// when it is sent again, or when a newer value of the metric has been sent. When
// history has been told, current values that the host knows from history only
// are sent once more as current ones, so that its view is right even if they
// never change again.
//
// # What is confirmed
//
// The specification wants QoS 0 for all of this, so nobody confirms a message.
// The link therefore asks the server something behind its data, on the same
// connection: an UNSUBSCRIBE of a filter that nobody subscribed. TCP keeps the
// order, so the answer proves that the server has read everything before it.
// Only then is a record settled. Whatever a cut, a crash or a silent link leaves
// without that proof is sent again, as history.
//
// That the server has it does not mean that the host has. With a primary host, a
// record is settled only when the host is still online [Options.HostGrace] later:
// what was sent into its outage is sent again after it. docs/decisions/0007 says
// what remains.
//
// # The primary host
//
// With [Options.PrimaryHost] the node is born only while that host's STATE says
// online. When it says offline, the node dies (NDEATH, disconnect), nothing more
// is settled, and the journal buffers. Connect then walks to the next server.
//
// # Commands
//
// NCMD with Node Control/Rebirth makes all births again, at most once a second.
// Node Control/Next Server walks. DCMD goes to [Means.Command] as one [Command]
// for each metric; it needs a timestamp, is never taken when retained, and more
// than 256 that wait are refused.
//
// # Limits
//
// No templates, data sets or arrays; no compressed payloads; no Sparkplug A or
// STATE of version 2.2. Primary-host outages that the server announces later than
// HostGrace can cost what was sent in between. Bad readings of a device that is
// dead are not sent one by one: its death says it. Repeated data are the host's to
// drop, by metric and timestamp.
package sparkplug
