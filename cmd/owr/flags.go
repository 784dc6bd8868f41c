package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// flags is everything that can be said on the command line. The fields are the texts as they
// were given; config.go makes values of them. The flag --max-active is the variable
// WR_MAX_ACTIVE; the tag `variable` names it where that rule does not hold, and "-" says
// that there is none.
type flags struct {
	Help        helpFlag         `short:"h" help:"Show this help." variable:"-"`
	Serve       serveFlags       `cmd:"" help:"Run one node. This is the command when none is named."`
	Demo        demoFlags        `cmd:"" help:"Run three nodes, an origin and a Redis on loopback, in one process."`
	Status      statusFlags      `cmd:"" help:"Show what a running node says of itself, its cluster and its room."`
	Cluster     clusterCommands  `cmd:"" help:"Show and change who belongs to the cluster."`
	Keys        keyCommands      `cmd:"" help:"Show and change the keys of the proofs in the visitors' cookies."`
	Backup      backupFlags      `cmd:"" help:"Write a backup of a running node's table and keys to a file."`
	Restore     restoreFlags     `cmd:"" help:"Make the data directory of one node of a new cluster from a backup."`
	Recover     recoverFlags     `cmd:"" help:"Go on with one node's data directory after the majority is lost for good."`
	Cert        certCommands     `cmd:"" help:"Make a private authority, and the certificates of nodes, clients and servers."`
	Version     struct{}         `cmd:"" help:"Show the version."`
	HelpOn      helpCommand      `cmd:"" name:"help" help:"Show this help, or that of a command."`
	Healthcheck healthcheckFlags `cmd:"" hidden:"" help:"Exit 0 when the node at --listen answers."`
	Origin      originFlags      `cmd:"" hidden:"" help:"Serve a page that shows what an origin gets to see."`
}

type serveFlags struct {
	publicFlags  `group:"Public listener:"`
	MaxActive    string `default:"100" group:"Room:" help:"Slots: visitors inside at once. 0 holds everybody."`
	roomFlags    `group:"Room:"`
	edgeFlags    `group:"Limits at the edge:"`
	RedisHost    string `default:"127.0.0.1" group:"Redis:" help:"Redis that the leader mirrors into. Empty or off: no mirror."`
	redisFlags   `group:"Redis:"`
	clusterFlags `group:"Cluster:"`
	FeatureLevel string `placeholder:"N" group:"Cluster:" help:"Hold the cluster's feature level at N, so that an upgrade can be taken back. Default: as high as all nodes can."`
	adminFlags   `group:"Admin listener:"`
	logFlags     `group:"Log:"`
}

type publicFlags struct {
	Listen                string `default:":8080" help:"Address of the public proxy."`
	TLSCert               string `placeholder:"PATH" help:"PEM file of the site's certificate and the chain behind it: the public listener speaks https. Read again when it changes."`
	TLSKey                string `placeholder:"PATH" help:"PEM file of its key."`
	BackendURL            string `default:"http://backend:8080" help:"The origin; http or https."`
	BackendCA             string `placeholder:"PATH" help:"PEM file of the authorities that an https origin's certificate may be from. Default: those of the system."`
	BackendServerName     string `placeholder:"NAME" help:"Name that an https origin is asked for and its certificate must hold. Default: the host of --backend-url."`
	BackendCert           string `placeholder:"PATH" help:"PEM file of a certificate to show to an https origin."`
	BackendKey            string `placeholder:"PATH" help:"PEM file of its key."`
	BackendConnectTimeout string `default:"5" help:"Longest time to connect to the origin, in seconds."`
	BackendTimeout        string `default:"60" help:"Longest time to the origin's first byte and between two of its bytes, in seconds."`
	MainURL               string `default:"/" help:"Where an admitted visitor goes when nothing better is known."`
	CookieName            string `default:"wr_token" help:"Name of the visitor's cookie."`
	QueueMode             string `default:"redirect" help:"redirect: 302 to /queue.html. inline: the waiting page at the URL asked for."`
	QueueStatus           string `default:"503" help:"Status of an inline page: 200, 202, 429 or 503."`
	FrameAncestors        string `default:"self" help:"Who may frame owr's pages: self, none, or origins such as https://shop.example, separated by commas."`
	PageFile              string `placeholder:"PATH" help:"HTML file that takes the place of the built-in waiting page."`
	TrustedProxies        string `placeholder:"CIDR,..." help:"Networks whose X-Forwarded-* headers are believed."`
	ProxyProtocol         toggle `help:"Connections from trusted proxies begin with a PROXY protocol header, version 1 or 2."`
}

// roomFlags are the limits of the room but for max-active, whose default is not the same everywhere.
type roomFlags struct {
	ActiveTTL       string `default:"60" help:"An active visitor unseen for this long loses its slot, in seconds."`
	ReleaseInterval string `default:"2" help:"The longest a free slot may wait for the head of the queue, in seconds."`
	ClaimTTL        string `default:"120" help:"How long a released visitor may take to come in, in seconds."`
	QueueAbsent     string `default:"90" help:"A queued visitor unseen for this long is passed over and keeps its ticket, in seconds."`
	QueueTTL        string `default:"1800" help:"A queued visitor unseen for this long leaves the queue, in seconds."`
	QueueMax        string `default:"0" help:"The most visitors in the queue. 0: no limit."`
	FirstHitTTL     string `name:"first-hit-ttl" default:"20" help:"A slot given to a first visit goes on after this long when others wait and its cookie has not come back, in seconds. 0: off."`
}

type edgeFlags struct {
	MaxHeader         string `default:"16384" help:"Longest request head, in bytes."`
	HeaderTimeout     string `default:"10" help:"Longest time for a whole request head, in seconds."`
	StallTimeout      string `default:"30" help:"Longest time that a body or a reader may make no progress, in seconds."`
	MaxBody           string `default:"0" help:"Longest body of a request, in bytes. 0: no limit."`
	MinRate           string `default:"250" help:"Bytes per second that a body or a reader has to make on average over the stall timeout. 0: no limit."`
	IdleTimeout       string `default:"60" help:"Longest time that a connection may be idle, in seconds."`
	DrainDelay        string `default:"0" help:"How long a node that stops goes on serving while its readiness is off, in seconds."`
	PollMin           string `default:"2" help:"How soon who waits near the head of the line is asked to come back, in seconds."`
	PollMax           string `default:"30" help:"How soon who waits far back is asked to come back, in seconds."`
	NoQuorum          string `default:"hold" placeholder:"hold|admit" help:"What becomes of visitors outside while the cluster has no majority: held, or let in without slots."`
	NoQuorumPerMinute string `default:"60" help:"How many visitors a minute a node lets in then, with admit."`
	VisitorRPS        string `default:"0" help:"Requests per second of one visitor. 0: no limit."`
	PollRPS           string `default:"10" help:"Polls per second of one visitor that waits. 0: no limit."`
	NewPerIPPerMinute string `default:"0" help:"New places per minute of one address. 0: no limit."`
	MaxConns          string `default:"0" help:"Open connections of clients. 0: as many as the limit of open files leaves."`
	MaxConnsPerIP     string `default:"0" help:"Open connections of one address. 0: no limit."`

	Pow                string `default:"off" help:"auto: a newcomer works for a place in line, or waits for it. off: it just gets it."`
	PowBits            string `default:"18" help:"Bits of work for a place: 2^N hashes on the average. 8 to 26."`
	PowWait            string `default:"30" help:"How long who cannot work waits for a place, in seconds."`
	VisitorConcurrency string `default:"0" help:"Requests of one visitor that are at the origin at once, for each node. 0: no limit."`
	Bind               string `default:"off" help:"What a visitor's cookie is good for only: its address prefix (ip), its browser and platform (ua), both (ip+ua), or nothing (off)."`
}

// redisFlags are the mirror's settings but for redis-host, whose default is not the same everywhere.
type redisFlags struct {
	RedisPort            string `default:"6379" help:"Port of Redis."`
	RedisUser            string `aliases:"redis-username" placeholder:"NAME" help:"User of Redis (or --redis-username)."`
	RedisUserFile        string `aliases:"redis-username-file" placeholder:"PATH" help:"File that holds the user of Redis."`
	RedisPass            string `aliases:"redis-password" placeholder:"SECRET" help:"Password of Redis (or --redis-password)."`
	RedisPassFile        string `aliases:"redis-password-file" placeholder:"PATH" help:"File that holds the password of Redis."`
	RedisDB              string `default:"0" help:"Number of the database."`
	RedisTLS             toggle `help:"Speak TLS to Redis."`
	RedisCA              string `placeholder:"PATH" help:"PEM file of the authorities that the certificate of Redis may be from. Default: those of the system."`
	RedisServerName      string `placeholder:"NAME" help:"Name that the certificate of Redis must hold. Default: --redis-host."`
	RedisCert            string `placeholder:"PATH" help:"PEM file of a certificate to show to Redis."`
	RedisKey             string `placeholder:"PATH" help:"PEM file of its key."`
	RedisKeyPrefix       string `default:"wr:" help:"What the name of every key begins with."`
	RedisPoolSize        string `default:"200" help:"The most connections to Redis. The mirror needs few."`
	RedisPoolIdleTimeout string `default:"10000" help:"How long a connection to Redis may be idle, in milliseconds."`
}

type clusterFlags struct {
	NodeID            string `placeholder:"NAME" help:"Name of this node in the cluster. Default: the host name."`
	ClusterListen     string `default:"127.0.0.1:7000" help:"Address of the cluster port; never the public one."`
	ClusterAdvertise  string `placeholder:"HOST:PORT" help:"Address at which the others reach this node. Default: its own in --peers, or --cluster-listen."`
	Peers             string `placeholder:"n1=HOST:PORT,..." help:"All nodes, this one included, the same on every node. Empty: one node."`
	Join              string `placeholder:"HOST:PORT" help:"Cluster port of any member, asked to take this node in. Not together with --peers."`
	Role              string `default:"voter" help:"Of a node that joins. voter: it votes once it has kept up. edge: it serves visitors and never votes."`
	DataDir           string `default:"./owr-data" help:"Directory of the Raft log and snapshots."`
	ClusterSecret     string `placeholder:"SECRET" help:"Secret that the nodes share."`
	ClusterSecretFile string `placeholder:"PATH" help:"File that holds the secret that the nodes share."`
	ClusterTLSCert    string `name:"cluster-tls-cert" placeholder:"PATH" help:"This node's certificate, in PEM: the nodes speak TLS to each other. See owr cert."`
	ClusterTLSKey     string `name:"cluster-tls-key" placeholder:"PATH" help:"Its key, in PEM."`
	ClusterTLSCA      string `name:"cluster-tls-ca" placeholder:"PATH" help:"The authority that has signed the certificates of all nodes, in PEM."`
	ClusterTLSMode    string `name:"cluster-tls-mode" default:"require" placeholder:"require|prefer" help:"prefer: talk without TLS to nodes that have no certificate yet, while a running cluster changes over."`
	InsecureCluster   toggle `help:"Start with peers on an address that is not loopback, without a secret or TLS."`
}

type adminFlags struct {
	AdminListen        string `default:"127.0.0.1:9090" help:"Address of health, metrics, status and the admin API; never the public one."`
	AdminToken         string `placeholder:"SECRET" help:"Bearer token of the admin API. Without one, changing calls are taken over loopback only."`
	AdminTokenFile     string `placeholder:"PATH" help:"File that holds the bearer token of the admin API."`
	AdminReadToken     string `placeholder:"SECRET" help:"Bearer token that is good for reading alone; with one, the reading calls of /v1 need it or the other."`
	AdminReadTokenFile string `placeholder:"PATH" help:"File that holds the bearer token for reading."`
	AdminProtectReads  toggle `help:"Reading /v1 and /metrics needs a token, a client's certificate, or loopback where there is neither. /livez and /readyz stay open."`
	AdminTLSCert       string `placeholder:"PATH" help:"PEM file of a certificate: the admin listener speaks https. Read again when it changes."`
	AdminTLSKey        string `placeholder:"PATH" help:"PEM file of its key."`
	AdminClientCA      string `placeholder:"PATH" help:"PEM file of the authorities that sign the certificates of operators. Such a certificate is checked when it is shown."`
}

type logFlags struct {
	LogLevel  string `default:"info" help:"debug, info, warn or error."`
	LogFormat string `default:"text" help:"text, or json for machines."`
}

type demoFlags struct {
	Port       string `default:"8080" help:"Port of the first of three proxies." variable:"-"`
	MaxActive  string `default:"2" group:"Room:" help:"Slots: visitors inside at once. 0 holds everybody."`
	roomFlags  `group:"Room:"`
	RedisHost  string `placeholder:"HOST" group:"Redis:" help:"Redis to mirror into. Empty: one inside this process. off: none."`
	redisFlags `group:"Redis:"`
	logFlags   `group:"Log:"`
}

type statusFlags struct {
	dialFlags
	readerFlags
}

// readerFlags are the secrets of the commands that only look: either is good for that.
type readerFlags struct {
	AdminToken         string `placeholder:"SECRET" help:"Bearer token of the admin API."`
	AdminTokenFile     string `placeholder:"PATH" help:"File that holds the bearer token of the admin API."`
	AdminReadToken     string `placeholder:"SECRET" help:"Bearer token of the admin API that is good for reading alone."`
	AdminReadTokenFile string `placeholder:"PATH" help:"File that holds the bearer token for reading."`
}

type healthcheckFlags struct {
	Listen  string `default:":8080" help:"Public listener of the node to ask."`
	TLSCert string `placeholder:"PATH" help:"Set where that listener speaks https."`
}

type originFlags struct {
	Listen string `default:":8080" help:"Address to serve on." variable:"-"`
}

type helpCommand struct {
	Command []string `arg:"" optional:"" help:"The command to explain."`
}

// A toggle is a setting that is on or off; as a flag it needs no value.
type toggle string

// Decode reads the value of --flag=value or of a variable. Without one the flag means on.
func (t *toggle) Decode(ctx *kong.DecodeContext) error {
	*t = "on"
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		*t = toggle(fmt.Sprint(ctx.Scan.Pop().Value))
	}
	return nil
}

// IsBool tells kong that the flag takes no value of its own.
func (*toggle) IsBool() bool { return true }

// helpFlag prints the help of the command that it stands behind.
type helpFlag bool

// IgnoreDefault keeps kong from setting the flag when it is not given.
func (helpFlag) IgnoreDefault() {}

// BeforeReset runs before any value is looked at, so help is there whatever the environment holds.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errHelp
}

// variableOf names the variable of a flag; empty when it has none.
func variableOf(flag *kong.Flag) string {
	switch name := flag.Tag.Get("variable"); name {
	case "":
		return variableName(flag.Name)
	case "-":
		return ""
	default:
		return name
	}
}

func variableName(flag string) string {
	return "WR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
