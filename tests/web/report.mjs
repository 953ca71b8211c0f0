// Counts tests and prints what tools/run_tests.py reads: "skipped: NAME: REASON" for each skip, and as
// the last line "N passed, N failed, N skipped".

export class Report {
  constructor() {
    this.passed = this.failed = this.skipped = 0;
  }

  /** `problem` is empty for a test that passed. */
  test(name, problem) {
    if (!problem) {
      ++this.passed;
      return;
    }
    ++this.failed;
    console.log(`failed: ${name}: ${problem}`);
  }

  skip(name, reason) {
    ++this.skipped;
    console.log(`skipped: ${name}: ${reason}`);
  }

  /** Prints the counts; the exit status is 1 if something failed or nothing ran. */
  end() {
    console.log(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
    process.exitCode = this.failed || this.passed + this.skipped === 0 ? 1 : 0;
  }
}
