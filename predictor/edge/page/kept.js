/** What this tab keeps until it is closed; where the browser forbids storage, until it is left. */

const PREFIX = "sdzero.";

export class Kept {
  constructor() {
    this.memory = {};
  }

  get(name) {
    try {
      return sessionStorage.getItem(PREFIX + name) ?? "";
    } catch {
      return this.memory[name] ?? "";
    }
  }

  set(name, value) {
    try {
      if (value) sessionStorage.setItem(PREFIX + name, value);
      else sessionStorage.removeItem(PREFIX + name);
    } catch {
      this.memory[name] = value;
    }
  }
}
