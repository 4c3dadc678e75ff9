;;; test-compile.el --- Building the module from Emacs  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Another program stands for cargo, whose work is the module that is here already.

;;; Code:

(require 'test-processes)

(defconst test-compile-module-file
  (expand-file-name (concat "lisp/rs-smtpmail-module" module-file-suffix) test-root)
  "The module that the stand-in for cargo gives.")

(defun test-compile-program (directory name &rest lines)
  "Make a program NAME of LINES, a shell script, in DIRECTORY."
  (let ((file (expand-file-name name directory)))
    (make-directory directory t)
    (with-temp-file file
      (insert "#!/bin/sh\n" (string-join lines "\n") "\n"))
    (set-file-modes file #o755)))

(defun test-compile-cargo (directory version &rest lines)
  "Make a cargo of VERSION in DIRECTORY that runs LINES before it builds."
  (apply #'test-compile-program directory "cargo"
         (append
          (list (format "[ \"$1\" != --version ] || { echo 'cargo %s (0 2026-01-01)'; exit; }"
                        version)
                "echo \"$0 builds in $PWD: $*\"")
          lines
          (list "while [ $# -gt 1 ]; do"
                "  [ \"$1\" != --target-dir ] || target=$2"
                "  shift"
                "done"
                "mkdir -p \"$target/release\""
                (format "cp %s \"$target/release/librs_smtpmail%s\""
                        (shell-quote-argument test-compile-module-file)
                        module-file-suffix)))))

(defun test-compile-programs (&rest without)
  "Return a directory of programs, in which those named WITHOUT are missing."
  (let ((directory (test-new-directory "programs")))
    (dolist (name '("cp" "mkdir"))
      (make-symbolic-link (executable-find name) (expand-file-name name directory)))
    (unless (member "cc" without)
      (test-compile-program directory "cc"))
    (unless (member "gpgme" without)
      (test-compile-program directory "pkg-config"))
    (unless (member "cargo" without)
      (test-compile-cargo directory "1.99.0"))
    directory))

(defun test-compile-sources (directory)
  "Put into DIRECTORY what the sources of the module are known by."
  (copy-file (expand-file-name "Cargo.toml" test-root) (file-name-as-directory directory))
  (make-directory (expand-file-name "src" directory)))

(defun test-compile-package ()
  "Return a new directory as a package archive gives it: all in one."
  (let ((directory (test-lisp-copy)))
    (test-compile-sources directory)
    directory))

(defun test-compile-checkout ()
  "Return the directory lisp in a new one as it is in the repository.
There are neither tests nor a Makefile, though."
  (let ((root (test-new-directory "checkout")))
    (test-compile-sources root)
    (copy-directory (test-lisp-copy) (expand-file-name "lisp" root) nil nil t)
    (expand-file-name "lisp/" root)))

(defun test-compile (lisp programs &optional form)
  "Build the module for the directory LISP in another Emacs.
PROGRAMS is the directory of the programs there are.  FORM is evaluated
before.  Return the exit status and what was printed."
  (test-finish
   (test-emacs `(progn
                  (setq load-path (cons ,lisp (cdr (cdr load-path)))
                        exec-path (list ,programs))
                  (setenv "PATH" ,programs)
                  (require 'rs-smtpmail)
                  ,form
                  (condition-case err
                      (rs-smtpmail-compile-module)
                    (error (princ (error-message-string err))
                           (kill-emacs 1)))
                  (princ (format "\nversion %s" (rs-smtp-version)))))))

(defun test-compile-well (lisp programs &optional form)
  "Build as `test-compile' with LISP, PROGRAMS and FORM does, and check the result.
Return what was printed."
  (pcase-let ((`(,status . ,text) (test-compile lisp programs form)))
    (ert-info (text :prefix "Output: ")
      (should (eq 0 status))
      (should (string-search "mail can be sent now" text))
      (should (string-search (concat "version " rs-smtpmail-version) text)))
    text))

(defun test-compile-in-vain (lisp programs &rest words)
  "Build with LISP and PROGRAMS; it must fail with all WORDS in the text."
  (pcase-let ((`(,status . ,text) (test-compile lisp programs)))
    (ert-info (text :prefix "Output: ")
      (should-not (eq 0 status))
      (dolist (word words)
        (should (string-search word text))))
    (should-not (file-exists-p (expand-file-name
                                (concat "rs-smtpmail-module" module-file-suffix) lisp)))
    text))

(defun test-compile-there-p (lisp)
  "Whether module and version are in the directory LISP, and nothing half done."
  (and (seq-every-p (lambda (suffix)
                      (file-exists-p (expand-file-name (concat "rs-smtpmail-module" suffix)
                                                       lisp)))
                    (list module-file-suffix ".version"))
       (null (directory-files lisp nil "\\.new\\'"))))

(defmacro test-with-own-home (&rest body)
  "Run BODY with a HOME of its own for other processes."
  (declare (indent 0))
  `(let ((process-environment (cons (concat "HOME=" (test-new-directory "home"))
                                    process-environment)))
     ,@body))

;;;; Layouts

(ert-deftest test-compile-files-of-a-package ()
  (test-with-own-home
    (let* ((lisp (test-compile-package))
           (text (test-compile-well lisp (test-compile-programs))))
      (should (test-compile-there-p lisp))
      (should (string-search (concat "builds in " (directory-file-name lisp)) text))
      (should (string-search "build --release --locked --lib --target-dir" text))
      ;; Hundreds of megabytes do not stay behind, neither here nor there.
      (should-not (file-exists-p (expand-file-name "target" lisp)))
      (should-not (file-exists-p (expand-file-name ".emacs.d/rs-smtpmail-build"
                                                   (getenv "HOME")))))))

(ert-deftest test-compile-links-to-a-checkout ()
  "As straight and elpaca make them; they empty their directory when they build anew."
  (test-with-own-home
    (let ((lisp (test-compile-checkout))
          (links (test-new-directory "links")))
      (dolist (file (directory-files lisp t "\\.el\\'"))
        (make-symbolic-link file links))
      (let ((byte-compile-verbose nil))
        (byte-compile-file (expand-file-name "rs-smtpmail-build.el" links)))
      (test-compile-well links (test-compile-programs))
      (should (test-compile-there-p lisp))
      ;; The next Emacs finds it.
      (should (equal (concat "version " rs-smtpmail-version)
                     (test-emacs-output
                      `(progn
                         (setq load-path (cons ,links (cdr (cdr load-path))))
                         (require 'rs-smtpmail)
                         (princ (format "version %s" (rs-smtp-version))))))))))

(ert-deftest test-compile-checkout-without-tests ()
  (test-with-own-home
    (let* ((lisp (test-compile-checkout))
           (target (expand-file-name "../target" lisp)))
      ;; As it is after `make': what is built there is used again.
      (make-directory target)
      (test-compile-well lisp (test-compile-programs))
      (should (test-compile-there-p lisp))
      (should (file-exists-p (expand-file-name "release" target))))))

(ert-deftest test-compile-no-sources ()
  "Another project's directory above is none."
  (test-with-own-home
    (let ((lisp (test-compile-checkout)))
      (with-temp-file (expand-file-name "../Cargo.toml" lisp)
        (insert "[package]\nname = \"other\"\n"))
      (test-compile-in-vain lisp (test-compile-programs) "sources"))))

(ert-deftest test-compile-directory-not-writable ()
  "That is said before anything is built."
  (test-with-own-home
    (let* ((lisp (test-compile-package))
           ;; Root can write everywhere.
           (result (test-compile lisp (test-compile-programs)
                                 '(progn
                                    (setq comp-enable-subr-trampolines nil
                                          native-comp-enable-subr-trampolines nil)
                                    (advice-add 'file-writable-p :override
                                                #'ignore)))))
      (should-not (eq 0 (car result)))
      (should (string-search (concat lisp ", where the module belongs") (cdr result)))
      (should-not (string-search "builds in" (cdr result))))))

;;;; What is needed

(ert-deftest test-compile-no-cargo ()
  (test-with-own-home
    (test-compile-in-vain (test-compile-package) (test-compile-programs "cargo")
                          "Rust 1." "no cargo" "https://rustup.rs")))

(ert-deftest test-compile-old-cargo ()
  (test-with-own-home
    (let ((programs (test-compile-programs "cargo")))
      (test-compile-cargo programs "1.63.0")
      (should-not (string-search "builds in"
                                 (test-compile-in-vain (test-compile-package) programs
                                                       "Rust 1." "1.63.0"
                                                       "https://rustup.rs"))))))

(ert-deftest test-compile-rustup-without-toolchain ()
  "What it says is passed on."
  (test-with-own-home
    (let ((programs (test-compile-programs "cargo")))
      (test-compile-program programs "cargo" "echo 'error: no default is configured' >&2"
                            "exit 1")
      (test-compile-in-vain (test-compile-package) programs
                            "no default is configured" "rustup default stable"))))

(ert-deftest test-compile-newer-cargo-at-home ()
  "It is used beside one of the system's that is too old."
  (test-with-own-home
    (let ((programs (test-compile-programs "cargo")))
      (test-compile-cargo programs "1.63.0")
      (test-compile-cargo (expand-file-name ".cargo/bin/" (getenv "HOME")) "1.99.0")
      (should (string-search ".cargo/bin/cargo builds"
                             (test-compile-well (test-compile-package) programs))))))

(ert-deftest test-compile-cargo-by-option ()
  (test-with-own-home
    (let ((elsewhere (test-new-directory "elsewhere")))
      (test-compile-cargo elsewhere "1.99.0")
      (should (string-search
               (concat (expand-file-name "cargo" elsewhere) " builds")
               (test-compile-well (test-compile-package) (test-compile-programs)
                                  `(setq rs-smtpmail-cargo
                                         ,(expand-file-name "cargo" elsewhere))))))))

(ert-deftest test-compile-no-c-compiler ()
  (test-with-own-home
    (let ((process-environment (cons "CC" process-environment)))
      (test-compile-in-vain (test-compile-package) (test-compile-programs "cc")
                            "C compiler"))))

(ert-deftest test-compile-without-gpgme ()
  "It is left out, and that is said."
  (test-with-own-home
    (let ((text (test-compile-well (test-compile-package)
                                   (test-compile-programs "gpgme"))))
      (should (string-search "--lib --no-default-features" text))
      (should (string-search "Without GPGME" text)))
    (should-not (string-search "GPGME" (test-compile-well (test-compile-package)
                                                          (test-compile-programs))))))

;;;; Outcome

(ert-deftest test-compile-cargo-fails ()
  "Its status decides, not what it says; a module of old is left alone."
  (test-with-own-home
    (let ((programs (test-compile-programs "cargo")))
      (test-compile-cargo programs "1.99.0" "echo Finished" "exit 101")
      (test-compile-in-vain (test-compile-package) programs "could not be built" "101")
      (test-compile-cargo programs "1.99.0" "echo 'warning: spurious network error'"
                          "echo 'error: failed to download from https://crates.example'"
                          "exit 101")
      (test-compile-in-vain (test-compile-package) programs "crates.io"))))

(ert-deftest test-compile-old-module-in-use ()
  "It stays in use, and the new one is there for the next Emacs."
  (test-with-own-home
    (let* ((lisp (test-compile-package))
           (file (expand-file-name (concat "rs-smtpmail-module" module-file-suffix) lisp)))
      (copy-file test-compile-module-file file)
      (pcase-let* ((before (file-attribute-inode-number (file-attributes file)))
                   (`(,status . ,text)
                    (test-compile lisp (test-compile-programs) '(rs-smtp-version))))
        (ert-info (text :prefix "Output: ")
          (should (eq 0 status))
          (should (string-search "Restart Emacs" text)))
        (should (test-compile-there-p lisp))
        (should-not (equal before (file-attribute-inode-number
                                   (file-attributes file))))))))

(ert-deftest test-compile-in-the-background ()
  "With a user there Emacs goes on, and the end of the output is seen."
  (test-with-own-home
    (let* ((lisp (test-compile-package))
           (programs (test-compile-programs "cargo"))
           (go-on (test-file "go-on")))
      (make-symbolic-link (executable-find "sleep") (expand-file-name "sleep" programs))
      (test-compile-cargo programs "1.99.0"
                          (format "until [ -e %s ]; do sleep 0.05; done" go-on))
      (let ((text
             (test-emacs-output
              `(progn
                 (setq load-path (cons ,lisp (cdr (cdr load-path)))
                       exec-path (list ,programs))
                 (setenv "PATH" ,programs)
                 (require 'rs-smtpmail)
                 (let* ((noninteractive nil)
                        (inhibit-message t)
                        (buffer (rs-smtpmail-compile-module))
                        (end (+ (float-time) 60))
                        (wait (lambda (text)
                                (while (and (not (string-search
                                                  text (with-current-buffer buffer
                                                         (buffer-string))))
                                            (< (float-time) end))
                                  (accept-process-output nil 0.05))
                                (with-current-buffer buffer
                                  (princ (format "%s " (= (window-point
                                                           (get-buffer-window))
                                                          (point-max))))))))
                   (princ (format "%s " (featurep 'rs-smtpmail-module)))
                   (funcall wait "cargo builds in")
                   (write-region "" nil ,go-on)
                   (funcall wait "mail can be sent now")
                   (princ (with-current-buffer buffer major-mode)))))))
        (should (equal "nil t t compilation-mode" text))))))

(provide 'test-compile)

;;; test-compile.el ends here
