// Package opcua is the adapter for OPC UA servers, as a client over opc.tcp.
//
// Clauses cited here are those of OPC 10000 ("OPC UA specification"), parts 3 to
// 11, edition 1.05.
//
// # What is promised
//
//   - A connection that breaks costs no value while the server's queue holds
//     them (setting buffer): the session is activated again on a new channel, and
//     messages that were sent and not received are asked for by Republish. If the
//     server has dropped the session its subscriptions are transferred to a new one,
//     and if that fails made anew.
//   - Values that are missing are read from the server's history where it has one
//     (setting backfill). What is still missing is told: a sample of quality
//     BadNoData whose detail says from when to when and why.
//   - A tag is not Good while nothing is heard of it: after one and a half
//     keep-alive times it is UncertainNoCommunicationLastUsable, or BadNoCommunication
//     if there never was a value.
//   - Namespaces are looked up by URI and paths translated on every session, and
//     again when the server says that they changed.
//   - A server is believed when its certificate, or an authority above it, is in
//     the folder trusted; one that is not, has expired, or is for another application
//     or host is refused and put into the folder rejected.
//   - What a server sends costs memory in proportion to its size, which is bounded
//     (setting max_message), and cannot make the gateway fail.
//
// # Addresses
//
//	nsu=urn:plant;s=Pump.Speed       a node of a namespace, by URI: best, since indices change
//	ns=2;i=1001                      by index
//	i=2258                           of the OPC UA namespace
//	ns=2;g=72962b91-fa75-4ae6-8d28-b404dc7daf63    ns=2;b=AQID    GUIDs and opaque (base64) ids
//	nsu=urn:plant;path=Pump1/Speed   a path of browse names below the folder Objects, in that namespace
//	nsu=urn:plant;path=/0:Objects/Pump1/2:Speed    from the root; an element may name its own namespace index
//
// In a path '&' makes '/', ':' or '&' an ordinary character. In a URI ';' and '%'
// are written %3B and %25.
//
// # Types and values
//
// A tag has the type of its node. It may be given, as OPC UA spells it (Double,
// Int16, LocalizedText, ...), for servers that do not tell; it counts for writing
// only. Numbers and booleans are themselves; DateTime is text in RFC 3339, Guid,
// NodeId, QualifiedName ("2:Name") and LocalizedText are text, ByteString is bytes.
// Arrays and matrices are JSON text; one element or a part is had with the key
// index. Structures are JSON objects by the definition that the server gives, or
// else their raw body with quality Uncertain. The status code of the server is the
// quality, its low bits included.
//
// Three types are no values:
//
//	method   access "w" or "rw". Writing calls it: with a JSON array of its arguments,
//	         with a single one, or with null for none. Reading gives the results of
//	         the last call as a JSON array.
//	events   the address is a notifier, such as i=2253, the server. Each event is a
//	         JSON text with event_id, event_type, source, source_name, time, message,
//	         severity and the fields that the tag names.
//	alarms   conditions: with condition, condition_name, branch, retain, enabled,
//	         comment, acked, confirmed, active, state and suppressed besides. When
//	         events were missed the state of all conditions is asked for again.
//	         Written to (access "rw"), one of
//	         {"acknowledge":"<condition>","comment":"..."}, confirm, add_comment, enable
//	         and disable; event_id names another event than the condition's last.
//
// Events and alarms come by subscription only.
//
// # Keys of a tag
//
//	index             element or range of an array: "3", "0:4", "1,2"
//	sampling          how often the server samples [the publishing interval]; "0s" = every change
//	queue             values that the server keeps [from the setting buffer; 1000 for events]
//	trigger           value, timestamp (a new time alone counts too) or status [value]
//	deadband_percent  of the node's EURange; where the server cannot do it the gateway does
//	object            of a method: the object to call it on [the one that has it]
//	event_type        of events: this type and those below it [all; for alarms conditions]
//	min_severity      of events: 1 to 1000 [all]
//	fields            of events: further fields, as browse paths separated by commas
//
// A dead-band of the tag itself is given to the server as well, so that what it
// would hold back does not travel.
//
// # Settings of a device
//
// Durations are texts with a unit. What is not given has the value in brackets.
//
//	endpoint             opc.tcp://host:port/path [port 4840]
//	security_policy      None, Basic256Sha256, Aes128_Sha256_RsaOaep, Aes256_Sha256_RsaPss, or auto: the
//	                     best of these three that the server has, never None [auto]
//	security_mode        Sign or SignAndEncrypt [SignAndEncrypt]
//	check_host           the server's certificate must name the host of the endpoint [true]
//	user                 name of the user [anonymous]
//	password  password_file  password_env    where the password is: here, in a file, in the environment
//	user_certificate  user_key               files, DER or PEM: a user known by certificate
//	allow_plaintext_password                 let the password travel unencrypted [false]
//	timeout              of each request [3s]
//	connect_timeout      of TCP [1.5s]
//	channel_lifetime     of the channel's keys, renewed at three quarters [1h]
//	session_timeout      how long the server keeps a session that is not heard of: longer
//	                     than the longest outage to ride out [2m]
//	reconnect_min  reconnect_max    pauses between attempts to connect [100ms, 1s]
//	refused_max          longest pause when security or identity is refused [30s]
//	publishing_interval  how often the server sends [the period of the tags' scan class]
//	keep_alive           how often it sends when there is nothing to send [2s]
//	buffer               time for which it keeps values of an item while the link is down [30s]
//	backfill             read what is missing from the server's history [true]
//	max_message          bytes of the largest message of the server [4194304]
//	max_text             bytes of the longest text, array or structure [65536]
package opcua
