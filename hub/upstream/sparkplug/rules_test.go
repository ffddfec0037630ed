package sparkplug_test

import (
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/hub/upstream/sparkplug/payload"
)

// rules are the assertions of the edge-node profile of the specification 3.0.0.
// Not among them are those about hosts and servers, and those about templates
// and data sets, of which one rule says that there are none. What needs a
// course of events of its own is in TestCourses.
func rules() []rule {
	return slices.Concat(connectRules(), birthRules(), dataRules(), metricRules(), deathRules())
}

func connectRules() []rule {
	return []rule{
		{"message-flow-edge-node-birth-publish-will-message payloads-ndeath-will-message", "CONNECT has a will", "", "CONNECT",
			will(func(c *packets.ConnectParams) bool { return true })},
		{"message-flow-edge-node-birth-publish-will-message-topic", "the will is NDEATH of this node", "", "CONNECT",
			will(func(c *packets.ConnectParams) bool { return c.WillTopic == "spBv1.0/G/NDEATH/N" })},
		{"message-flow-edge-node-birth-publish-will-message-payload", "the will is a payload of bdSeq only", "", "CONNECT",
			func(m *seen, _ *past) string { return unless(len(m.p.Metrics) == 1 && noted(m) <= 255, "%+v", m.p) }},
		{"message-flow-edge-node-birth-publish-will-message-payload-bdSeq topics-nbirth-bdseq-increment", "bdSeq starts at 0 and counts CONNECTs", "", "CONNECT", stepped},
		{"message-flow-edge-node-birth-publish-will-message-qos payloads-ndeath-will-message-qos", "the will has QoS 1", "", "CONNECT",
			will(func(c *packets.ConnectParams) bool { return c.WillQos == 1 })},
		{"message-flow-edge-node-birth-publish-will-message-will-retained payloads-ndeath-will-message-retain", "the will is not retained", "", "CONNECT",
			will(func(c *packets.ConnectParams) bool { return !c.WillRetain })},
		{"principles-persistence-clean-session-311", "clean session", "plain", "CONNECT",
			func(m *seen, _ *past) string {
				return unless(m.packet.ProtocolVersion == 4 && m.packet.Connect.Clean, "%+v", m.packet)
			}},
		{"principles-persistence-clean-session-50", "clean start, and the session ends with the connection", "v5", "CONNECT",
			func(m *seen, _ *past) string {
				p := m.packet
				return unless(p.ProtocolVersion == 5 && p.Connect.Clean && p.Properties.SessionExpiryInterval == 0, "%+v", p)
			}},
		{"message-flow-edge-node-ncmd-subscribe topics-ncmd-topic", "subscribes to its NCMD", "", "SUBSCRIBE", subscribed("spBv1.0/G/NCMD/N")},
		{"message-flow-device-dcmd-subscribe topics-dcmd-topic", "subscribes to DCMD of its devices", "plain", "SUBSCRIBE", subscribed("spBv1.0/G/DCMD/N/+")},
		{"operational-behavior-primary-application-state-with-multiple-servers-state-subs", "subscribes to STATE of the primary host", "host", "SUBSCRIBE",
			subscribed("spBv1.0/STATE/scada")},
	}
}

func birthRules() []rule {
	first := func(m *seen, p *past) string {
		for _, k := range p.kinds {
			if k[0] == 'N' || k[0] == 'D' && k != "DISCONNECT" {
				return ""
			}
		}
		return unless(m.kind == "NBIRTH" || m.kind == "NDEATH" && p.nbirth == nil, "comes first")
	}
	return []rule{
		{"topics-nbirth-topic message-flow-edge-node-birth-publish-nbirth-topic", "topic of NBIRTH", "", "NBIRTH", topic},
		{"topics-dbirth-topic message-flow-device-birth-publish-dbirth-topic message-flow-device-birth-publish-dbirth-match-edge-node-topic", "topic of DBIRTH", "", "DBIRTH", topic},
		{"topic-structure topic-structure-namespace-a intro-group-id-string intro-edge-node-id-string intro-device-id-string", "every topic has the structure", "",
			"NBIRTH NDATA NDEATH DBIRTH DDATA DDEATH", topic},
		{"topic-structure-namespace-device-id-associated-message-types", "these have a device", "", "DBIRTH DDATA DDEATH", topic},
		{"topic-structure-namespace-device-id-non-associated-message-types", "these have none", "", "NBIRTH NDATA NDEATH", topic},
		{"principles-birth-certificates-order", "NBIRTH is the first message", "", "NBIRTH NDATA NDEATH DBIRTH DDATA DDEATH", first},
		{"message-flow-edge-node-birth-publish-connect", "births come in a session", "", births,
			func(m *seen, p *past) string { return unless(p.kinds[0] == "CONNECT", "not connected") }},
		{"topics-nbirth-mqtt payloads-nbirth-qos payloads-nbirth-retain message-flow-edge-node-birth-publish-nbirth-qos message-flow-edge-node-birth-publish-nbirth-retained",
			"NBIRTH has QoS 0 and is not retained", "", "NBIRTH", qos0},
		{"topics-dbirth-mqtt payloads-dbirth-qos payloads-dbirth-retain message-flow-device-birth-publish-dbirth-qos message-flow-device-birth-publish-dbirth-retained",
			"DBIRTH has QoS 0 and is not retained", "", "DBIRTH", qos0},
		{"topics-nbirth-seq-num message-flow-edge-node-birth-publish-nbirth-payload-seq payloads-nbirth-seq payloads-sequence-num-req-nbirth", "NBIRTH has number 0", "", "NBIRTH", zero},
		{"topics-dbirth-seq message-flow-device-birth-publish-dbirth-payload-seq payloads-dbirth-seq payloads-dbirth-seq-inc", "DBIRTH has the next number", "", "DBIRTH", next},
		{"topics-nbirth-timestamp payloads-nbirth-timestamp", "NBIRTH has a time", "", "NBIRTH", timed},
		{"topics-dbirth-timestamp payloads-dbirth-timestamp", "DBIRTH has a time", "", "DBIRTH", timed},
		{"message-flow-edge-node-birth-publish-nbirth-payload topics-nbirth-metrics operational-behavior-data-publish-nbirth-values", "metrics of NBIRTH are complete", "", "NBIRTH", each(complete)},
		{"message-flow-device-birth-publish-dbirth-payload topics-dbirth-metrics operational-behavior-data-publish-dbirth-values", "metrics of DBIRTH are complete", "", "DBIRTH", each(complete)},
		{"topics-nbirth-bdseq-included payloads-nbirth-bdseq", "NBIRTH has bdSeq", "", "NBIRTH",
			func(m *seen, _ *past) string { return unless(noted(m) <= 255, "%+v", m.p) }},
		{"topics-nbirth-bdseq-matching message-flow-edge-node-birth-publish-nbirth-payload-bdSeq payloads-nbirth-bdseq-repeat operational-behavior-data-commands-rebirth-action-3",
			"bdSeq of every NBIRTH, repeated ones too, is the will's", "", "NBIRTH", sameDeath},
		{"topics-nbirth-rebirth-metric payloads-nbirth-rebirth-req operational-behavior-data-commands-rebirth-name operational-behavior-data-commands-rebirth-datatype " +
			"operational-behavior-data-commands-rebirth-value operational-behavior-data-commands-rebirth-name-aliases",
			"NBIRTH has the control Rebirth: boolean, false, without alias", "", "NBIRTH", rebirthControl},
		{"message-flow-device-birth-publish-nbirth-wait", "DBIRTH comes after NBIRTH", "", "DBIRTH",
			func(_ *seen, p *past) string { return unless(p.nbirth != nil, "no NBIRTH") }},
		{"topic-structure-namespace-unique-device-id", "a device is born once after an NBIRTH, unless it changed or died", "host", "DBIRTH",
			func(m *seen, p *past) string { return unless(p.devices[m.device] == nil, "twice") }},
	}
}

func dataRules() []rule {
	return []rule{
		{"topics-ndata-topic", "topic of NDATA", "", "NDATA", topic},
		{"topics-ddata-topic", "topic of DDATA", "", "DDATA", topic},
		{"topics-ndata-mqtt payloads-ndata-qos payloads-ndata-retain", "NDATA has QoS 0 and is not retained", "", "NDATA", qos0},
		{"topics-ddata-mqtt payloads-ddata-qos payloads-ddata-retain", "DDATA has QoS 0 and is not retained", "", "DDATA", qos0},
		{"topics-ndata-seq-num payloads-ndata-seq payloads-ndata-seq-inc", "NDATA has the next number", "", "NDATA", next},
		{"topics-ddata-seq-num payloads-ddata-seq payloads-ddata-seq-inc", "DDATA has the next number", "", "DDATA", next},
		{"payloads-sequence-num-always-included", "all but NDEATH have a number", "", "NBIRTH NDATA DBIRTH DDATA DDEATH", numbered},
		{"payloads-sequence-num-incrementing", "numbers go up by one, and from 255 to 0", "", "NDATA DBIRTH DDATA DDEATH", next},
		{"topics-ndata-timestamp payloads-ndata-timestamp", "NDATA has a time", "", "NDATA", timed},
		{"topics-ddata-timestamp payloads-ddata-timestamp", "DDATA has a time", "", "DDATA", timed},
		{"payloads-timestamp-in-UTC", "times of messages are UTC", "", "NBIRTH NDATA NDEATH DBIRTH DDATA DDEATH", timed},
		{"payloads-ndata-order topics-ndata-payload", "NDATA comes after the births, with what changed", "", "NDATA",
			func(m *seen, p *past) string { return afterBirth(m, p) + unless(len(m.p.Metrics) > 0, "is empty") }},
		{"payloads-ddata-order topics-ddata-payload", "DDATA comes after the births, with what changed", "", "DDATA",
			func(m *seen, p *past) string { return afterBirth(m, p) + unless(len(m.p.Metrics) > 0, "is empty") }},
		{"topics-nbirth-metric-reqs operational-behavior-data-publish-nbirth", "NBIRTH has told of all of NDATA", "", "NDATA", each(announced)},
		{"topics-dbirth-metric-reqs operational-behavior-data-publish-dbirth", "DBIRTH has told of all of DDATA", "", "DDATA", each(announced)},
		{"operational-behavior-data-publish-nbirth-order", "current values of the node in order of time", "", "NBIRTH NDATA", ordered},
		{"operational-behavior-data-publish-dbirth-order", "current values of devices in order of time", "", "DBIRTH DDATA", ordered},
	}
}

func metricRules() []rule {
	return []rule{
		{"payloads-name-requirement", "a name where there is no alias", "", births + " " + data,
			each(func(w *payload.Metric, _ *seen, _ *past) string { return unless(w.Name != "" || w.HasAlias, "neither") })},
		{"payloads-alias-birth-requirement", "births have name and alias", "plain", "DBIRTH",
			each(func(w *payload.Metric, _ *seen, _ *past) string { return unless(w.Name != "" && w.HasAlias, "%+v", w) })},
		{"payloads-alias-uniqueness", "no alias means two metrics of the node", "plain", births,
			each(func(w *payload.Metric, m *seen, p *past) string {
				for device, b := range p.devices {
					for i := range b.p.Metrics {
						if b.p.Metrics[i].Alias == w.Alias && w.HasAlias && m.kind == "DBIRTH" && device != m.device {
							return "means a metric of " + device + " too"
						}
					}
				}
				return ""
			})},
		{"payloads-alias-data-cmd-requirement", "data have the alias and no name", "plain", data,
			each(func(w *payload.Metric, _ *seen, p *past) string {
				return unless(w.Name == "" && w.HasAlias && p.name(w) != "", "%+v", w)
			})},
		{"payloads-name-birth-data-requirement payloads-metric-timestamp-in-UTC", "every metric has a time", "", births + " " + data,
			each(func(w *payload.Metric, _ *seen, _ *past) string {
				return unless(w.HasTimestamp && isTime(w.Timestamp), "%+v", w)
			})},
		{"payloads-metric-datatype-req payloads-metric-datatype-value payloads-metric-datatype-value-type", "births have known datatypes", "", births,
			each(func(w *payload.Metric, _ *seen, _ *past) string { return unless(w.Datatype.Valid(), "%+v", w) })},
		{"payloads-metric-datatype-not-req", "data have no datatype", "", data,
			each(func(w *payload.Metric, _ *seen, _ *past) string {
				return unless(w.Datatype == payload.Unknown, "%+v", w)
			})},
		{"payloads-propertyset-keys-array-size payloads-propertyset-values-array-size", "as many keys as values (reading refuses anything else)", "", births + " " + data,
			func(*seen, *past) string { return "" }},
		{"payloads-metric-propertyvalue-type-type payloads-metric-propertyvalue-type-value payloads-metric-propertyvalue-type-req", "properties have known types", "", births + " " + data,
			qualities(func(p *payload.Property) bool { return p.Datatype.Valid() })},
		{"payloads-propertyset-quality-value-type", "Quality is a signed 32-bit number", "", births + " " + data,
			qualities(func(p *payload.Property) bool { return p.Key != "Quality" || p.Datatype == payload.Int32 })},
		{"payloads-propertyset-quality-value-value", "Quality is 0, 192 or 500", "", births + " " + data,
			qualities(func(p *payload.Property) bool {
				return p.Key != "Quality" || p.Scalar.Field == payload.IntField && anyOf(p.Scalar.Bits, 0, 192, 500)
			})},
		{"case-sensitivity-metric-names", "no two names differ by case only", "", births,
			func(m *seen, _ *past) string {
				names := map[string]bool{}
				for i := range m.p.Metrics {
					n := strings.ToLower(m.p.Metrics[i].Name)
					if names[n] {
						return n
					}
					names[n] = true
				}
				return ""
			}},
		{"topics-nbirth-templates payloads-template-definition-nbirth-only payloads-template-definition-nbirth payloads-dataset-parameter-type-req", "there are no templates and no data sets", "", births + " " + data,
			each(func(w *payload.Metric, _ *seen, _ *past) string {
				return unless(w.Scalar.Field != payload.OtherField && w.Datatype != payload.Template && w.Datatype != payload.DataSet, "%+v", w)
			})},
	}
}

func deathRules() []rule {
	return []rule{
		{"topics-ndeath-topic", "topic of NDEATH", "", "NDEATH", topic},
		{"topics-ndeath-payload payloads-ndeath-bdseq", "NDEATH has the will's bdSeq and nothing else", "", "NDEATH",
			func(m *seen, p *past) string { return sameDeath(m, p) + unless(len(m.p.Metrics) == 1, "%+v", m.p) }},
		{"topics-ndeath-seq payloads-ndeath-seq", "NDEATH and the will have no number", "", "NDEATH CONNECT", unnumbered},
		{"topics-ddeath-topic", "topic of DDEATH", "", "DDEATH", topic},
		{"topics-ddeath-mqtt", "DDEATH has QoS 0 and is not retained", "", "DDEATH", qos0},
		{"topics-ddeath-seq-num payloads-ddeath-seq payloads-ddeath-seq-inc payloads-ddeath-seq-number", "DDEATH has the next number", "", "DDEATH", next},
		{"payloads-ddeath-timestamp", "DDEATH has a time", "", "DDEATH", timed},
		{"operational-behavior-device-ddeath", "DDEATH is of a device that lives", "", "DDEATH", afterBirth},
		{"operational-behavior-edge-node-intentional-disconnect-ndeath payloads-ndeath-will-message-publisher payloads-ndeath-will-message-publisher-disconnect-mqtt311 " +
			"operational-behavior-edge-node-intentional-disconnect-packet", "NDEATH comes right before DISCONNECT", "", "DISCONNECT", died},
	}
}
