// Package opcua is the adapter for OPC UA servers, as a client.
package opcua
