// Package rules holds the house rules of the repository as a test: who may
// import whom, which third-party module may be used where and why, and what
// only some folders may do. It has no code of its own.
package rules
