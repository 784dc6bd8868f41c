// Package compose holds the test that runs the real docker-compose.yml. Where no registry answers,
// the script standin makes the images that the files name from what the machine has.
package compose
