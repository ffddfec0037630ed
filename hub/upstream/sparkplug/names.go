package sparkplug

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Namespace begins every topic (specification 3.0.0, 4.1.1).
const namespace = "spBv1.0"

// Message types (specification 3.0.0, 4.1.3).
const (
	nbirth = "NBIRTH"
	ndeath = "NDEATH"
	ndata  = "NDATA"
	ncmd   = "NCMD"
	dbirth = "DBIRTH"
	ddeath = "DDEATH"
	ddata  = "DDATA"
	dcmd   = "DCMD"
	state  = "STATE"
)

// Names of metrics of the node that the specification gives (4.2.1, 6.4).
const (
	metricBdSeq      = "bdSeq"
	controlFolder    = "Node Control/"
	metricRebirth    = controlFolder + "Rebirth"
	metricNextServer = controlFolder + "Next Server"
	propertyFolder   = "Properties/"
)

// CheckID reports why s cannot be a group, edge node, device or host ID
// (specification 3.0.0, 4.1.2, 4.1.4, 4.1.5).
func CheckID(s string) error {
	switch {
	case s == "":
		return errors.New("the ID is empty")
	case !utf8.ValidString(s):
		return fmt.Errorf("ID %q is not UTF-8", s)
	case strings.ContainsAny(s, "+/#\x00"):
		return fmt.Errorf("ID %q holds one of + / # or NUL", s)
	}
	return nil
}

// checkMetric reports why s cannot be the name of a metric. Slashes make folders.
func checkMetric(s string, ofNode bool) error {
	switch {
	case s == "":
		return errors.New("the name of a metric is empty")
	case !utf8.ValidString(s):
		return fmt.Errorf("the name of a metric, %q, is not UTF-8", s)
	case ofNode && (s == metricBdSeq || strings.HasPrefix(s, controlFolder)):
		return fmt.Errorf("the name of a metric, %q, belongs to the specification", s)
	}
	return nil
}
