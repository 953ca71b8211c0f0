// Counts tests and prints what tools/run_tests.py reads: "skipped: NAME: REASON" for each skip, and
// as the last line "N passed, N failed, N skipped".

export class Report {
  /** `prefix` stands before the names of tests; `print` shows a line. */
  constructor(prefix = "", print = console.log) {
    this.passed = this.failed = this.skipped = 0;
    this.prefix = prefix;
    this.print = print;
  }

  /** `problem` is empty for a test that passed. */
  test(name, problem) {
    if (!problem) {
      ++this.passed;
      return;
    }
    ++this.failed;
    this.print(`failed: ${this.prefix}${name}: ${problem}`);
  }

  skip(name, reason) {
    ++this.skipped;
    this.print(`skipped: ${this.prefix}${name}: ${reason}`);
  }

  /** Takes over the counts of another report. */
  add({ passed, failed, skipped }) {
    this.passed += passed;
    this.failed += failed;
    this.skipped += skipped;
  }

  /** Prints the counts; true if something ran and nothing failed. */
  end() {
    this.print(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
    return this.failed === 0 && this.passed + this.skipped > 0;
  }
}
