package compose

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A stack is the project of one test: its containers, volumes, and the images that it made.
type stack struct {
	t       testing.TB
	compose []string // docker compose, or docker-compose
	env     []string
	before  []string // ids of images that were there before; none of these is ever removed
	made    []string // ids of images that the build printed, in that order
}

// run runs a command at the root of the module and answers what it printed.
func (s *stack) run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), s.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (s *stack) must(name string, args ...string) string {
	s.t.Helper()
	out, err := s.run(name, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// project runs docker compose for this project.
func (s *stack) project(args ...string) string {
	s.t.Helper()
	return s.must(s.compose[0], slices.Concat(s.compose[1:], args)...)
}

// findCompose prefers the plugin to the older program.
func findCompose(t testing.TB) []string {
	if exec.Command("docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}
	}
	if path, err := exec.LookPath("docker-compose"); err == nil {
		return []string{path}
	}
	t.Skip("neither docker compose nor docker-compose is installed")
	return nil
}

// needImages makes sure that the images which the files name are there: those of a registry where one
// answers, else stand-ins of this machine, which go again with the test.
func (s *stack) needImages() {
	s.t.Helper()
	for kind, file := range map[string]string{"golang": "../../Dockerfile", "redis": "../../docker-compose.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		tag := regexp.MustCompile(kind + `:[\w.-]+`).FindString(string(text))
		if tag == "" {
			s.t.Fatalf("%s names no %s image", file, kind)
		}
		if _, err := s.run("docker", "image", "inspect", tag); err == nil {
			continue
		}
		if _, err := s.run("docker", "pull", "--quiet", tag); err == nil {
			s.t.Logf("%s: pulled", tag)
			continue
		}
		s.t.Logf("%s: no registry answers, so this machine's own %s stands in", tag, kind)
		id := strings.TrimSpace(s.must("test/compose/standin", kind, tag))
		s.t.Cleanup(func() {
			if out, err := s.run("docker", "rmi", tag); err != nil {
				s.t.Errorf("remove the stand-in %s (%s): %v %s", tag, id, err, out)
			}
		})
	}
}

// images lists the ids of all images, the unnamed ones too.
func (s *stack) images() []string {
	return strings.Fields(s.must("docker", "images", "--all", "--quiet", "--no-trunc"))
}

// steps are the ids that the classic builder prints for what it makes. The newer one keeps its
// steps in a cache of its own and prints none.
var (
	steps   = regexp.MustCompile(`(?m)^ ---> ([0-9a-f]{12})$`)
	running = regexp.MustCompile(`(?m)^ ---> Running in ([0-9a-f]{12})$`)
)

// build builds the image by the compose file. All services that are built have one image, so one of
// them is enough.
func (s *stack) build() {
	s.t.Helper()
	s.before = s.images()
	s.t.Cleanup(s.removeImages)
	out, err := s.run(s.compose[0], slices.Concat(s.compose[1:], []string{"build", "n1"})...)
	for _, m := range steps.FindAllStringSubmatch(out, -1) {
		if !slices.Contains(s.made, m[1]) {
			s.made = append(s.made, m[1])
		}
	}
	if err != nil {
		for _, m := range running.FindAllStringSubmatch(out, -1) {
			_, _ = s.run("docker", "rm", m[1]) // only the step that failed has left one
		}
		s.t.Fatal(err)
	}
}

// removeImages removes what the build made, the last first, and nothing that was there before.
func (s *stack) removeImages() {
	_, _ = s.run("docker", "rmi", s.image()) // the name; it is not there when the build failed
	slices.Reverse(s.made)
	for _, id := range s.made {
		if !slices.ContainsFunc(s.before, func(full string) bool { return strings.HasPrefix(full, "sha256:"+id) }) {
			_, _ = s.run("docker", "rmi", id) // a parent goes with its last child
		}
	}
}

func (s *stack) image() string { return strings.TrimPrefix(s.env[0], "OWR_IMAGE=") }
