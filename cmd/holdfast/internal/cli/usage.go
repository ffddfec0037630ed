package cli

// The usage texts. They are laid out by hand; a test holds every flag that
// exists against them.

const usageRoot = `
Usage:
    holdfast run                        hub and field in one process
    holdfast hub | field                one daemon each, as systemd starts them
    holdfast status                     what runs, and what troubles it
    holdfast tags [PATTERN...] [--watch]
                                        newest value, quality and age of tags
    holdfast write DEVICE/TAG VALUE     command a field device
    holdfast config check | show | import | export
                                        look at the configuration, exchange it
    holdfast browse DEVICE | modbus TARGET
                                        look at what a field device offers
    holdfast library [PRODUCT]          products whose tags are known
    holdfast trust list | add | accept | reject | remove
                                        which OPC UA servers are believed
    holdfast journal inspect | verify   look at the hub's log on disk
    holdfast passwd                     make a password hash for a hub user
    holdfast completion SHELL           script for bash, zsh or fish
    holdfast version

Options of every verb:
    -c, --config FILE   configuration (default /etc/holdfast/config.toml, or
                        $HOLDFAST_CONFIG)
        --json          print JSON instead of text
    -h, --help          how the verb is used

Holdfast reads PLCs and sensors, keeps every value on disk until an upstream
broker has confirmed it, and loses nothing that it has acknowledged.

Exit status: 0 done, 1 failure, 2 wrong usage or configuration, 3 refused,
4 the daemon or the device cannot be reached.

Examples:
    $ holdfast config check
    $ holdfast run
    $ holdfast tags --watch 'boiler/*'
    $ holdfast write boiler/setpoint 71.5 --verify
`

const usageRun = `
Usage:
    holdfast run [-c FILE]

Runs the hub and the field daemon in one process, for a workstation or a small
device. Stops on SIGINT and SIGTERM; reads the configuration again on SIGHUP.

Examples:
    $ holdfast run -c bench.toml
`

const usageHub = `
Usage:
    holdfast hub [-c FILE]

Runs the hub: MQTT listeners, the journal, routes and upstreams. What a client
was acknowledged is on disk. Stops on SIGINT and SIGTERM after a last commit;
on SIGHUP it reads users, rules and routes again.
`

const usageField = `
Usage:
    holdfast field [-c FILE]

Runs the field daemon: reads the field devices, publishes their readings to the
hub over its local socket, and carries out commands. Starts without the hub and
waits for it. On SIGHUP it reads devices and tags again; devices that did not
change are not disturbed.
`

const usageStatus = `
Usage:
    holdfast status [--json]

Shows both daemons: clients, journal, upstreams, field devices, conditions.
Exits with 4 when neither daemon answers, with 1 when a condition is raised.

Examples:
    $ holdfast status
    $ holdfast status --json | jq .hub.journal
`

const usageTags = `
Usage:
    holdfast tags [--watch] [--bad] [PATTERN...]

Shows the newest reading of each tag: value, quality, age. A PATTERN is
DEVICE/TAG with * for any letters; without one, every tag is shown.

Options:
    -w, --watch   keep the table up to date; with --json, a line for each change
        --bad     only tags whose quality is not good

Examples:
    $ holdfast tags
    $ holdfast tags --watch 'boiler/*'
    $ holdfast tags --json 'press*/temp*'
`

const usageWrite = `
Usage:
    holdfast write DEVICE/TAG VALUE [--expires DURATION] [--verify]

Sends a command through the hub to a field device and waits for what came of
it. VALUE is true, false, a number, or text; text that looks like a number is
written in double quotes of its own: '"17"'.

Options:
    -e, --expires DURATION   the latest that the command may be carried out,
                             from now (default 5s)
    -v, --verify             read the value back and compare

Exits with 0 when the device has confirmed, 3 when the command was refused, 4
when the hub or the device did not answer. A command is carried out once or not
at all; when it is not known which, the answer says so.

Examples:
    $ holdfast write boiler/setpoint 71.5
    $ holdfast write pump/run true --verify --expires 2s
`

const usageConfig = `
Usage:
    holdfast config check [-c FILE]   tell every mistake, with file and line
    holdfast config show [-c FILE]    print what is in force, defaults included
    holdfast config import KIND FILE  take over another program's configuration
    holdfast config export [DEVICE]   print field devices and tags in one piece

Checking opens nothing but the configuration and its tag tables.
`

const usageConfigShow = `
Usage:
    holdfast config show [-c FILE] [--json]

Prints the configuration that is in force, defaults included. Passwords and
secrets are left out.
`

const usageJournal = `
Usage:
    holdfast journal inspect [-n COUNT] [--from OFFSET] [DIR]
    holdfast journal verify [DIR]

Looks at the hub's log on disk without changing it. DIR is the journal's
directory; without it, the configured one.
`

const usageJournalInspect = `
Usage:
    holdfast journal inspect [-n COUNT] [--from OFFSET] [DIR]

Shows the segments, cursors and gaps of a journal, and its last messages. It
may be used while the hub runs.

Options:
    -n, --messages COUNT   how many messages to show (default 10, 0 for none,
                           -1 for all)
        --from OFFSET      the first message to show (default: the last COUNT)

Examples:
    $ holdfast journal inspect
    $ holdfast journal inspect -n -1 --from 1000 --json | jq -r .topic
`

const usageJournalVerify = `
Usage:
    holdfast journal verify [DIR]

Reads every byte of a journal and checks every checksum. Changes nothing. Exits
with 1 when records are damaged or missing.
`

const usagePasswd = `
Usage:
    holdfast passwd

Reads a password from standard input, or asks for it twice on a terminal, and
prints the hash that goes into the configuration as [[hub.user]] password.

Examples:
    $ holdfast passwd
    $ pwgen 20 1 | tee /dev/tty | holdfast passwd
`

const usageCompletion = `
Usage:
    holdfast completion bash|zsh|fish

Prints a completion script.

Examples:
    $ holdfast completion bash > /etc/bash_completion.d/holdfast
    $ holdfast completion fish > ~/.config/fish/completions/holdfast.fish
`

const usageVersion = `
Usage:
    holdfast version
`
