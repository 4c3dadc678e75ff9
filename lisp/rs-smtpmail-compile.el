;;; rs-smtpmail-compile.el --- Build the native module from its sources  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The sources are looked for from where the Lisp files really are, so that
;; links to them do: in the directory above, as in a checkout, or beside them,
;; as in a package.  Only cargo is called, and nothing is installed but the
;; module.  What is missing is said before the build, with the way to get it.

;;; Code:

(require 'compile)
(require 'rs-smtpmail)
(require 'rs-smtpmail-build)

(defcustom rs-smtpmail-cargo nil
  "The cargo program that builds the module.
If nil, it is looked for in the variable `exec-path' and in ~/.cargo/bin,
and the first that is new enough is taken."
  :type '(choice (const :tag "Look for it" nil) file)
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

;;;; What is needed

(defconst rs-smtpmail--packagers
  '(("apt-get" :rust "apt install cargo-web (on Ubuntu: rustup)"
     :cc "apt install gcc" :gpgme "apt install libgpgme-dev pkgconf")
    ("dnf" :rust "dnf install cargo"
     :cc "dnf install gcc" :gpgme "dnf install gpgme-devel pkgconf-pkg-config")
    ("pacman" :rust "pacman -S rust"
     :cc "pacman -S gcc" :gpgme "pacman -S gpgme pkgconf")
    ("brew" :rust "brew install rust"
     :cc "xcode-select --install" :gpgme "brew install gpgme pkgconf"))
  "Programs that install packages, and how they install what is needed.")

(defun rs-smtpmail--how-to-get (what)
  "Return how WHAT, a property of `rs-smtpmail--packagers', is had here."
  (let* ((packager (seq-find (lambda (packager) (executable-find (car packager)))
                             rs-smtpmail--packagers))
         (command (plist-get (cdr packager) what)))
    (if (eq what :rust)
        (concat (and command (concat command ", or "))
                "rustup from https://rustup.rs, then \"rustup default stable\"")
      (or command (if (eq what :cc) "install gcc or clang"
                    "install GPGME's files for development, and pkg-config")))))

(defun rs-smtpmail--cargo-programs ()
  "Return the cargo programs that there may be, as absolute file names."
  (if rs-smtpmail-cargo
      (list (or (executable-find rs-smtpmail-cargo)
                (user-error "There is no program %s (see `rs-smtpmail-cargo')"
                            rs-smtpmail-cargo)))
    (delete-dups
     (delq nil
           (list (executable-find "cargo")
                 (let ((exec-path (list (expand-file-name "~/.cargo/bin/"))))
                   (executable-find "cargo")))))))

(defun rs-smtpmail--cargo-version (cargo)
  "Return the version that the program CARGO gives.
That is a number, or a text that tells why there is none."
  (with-temp-buffer
    (call-process cargo nil t nil "--version")
    (let ((text (string-trim (buffer-string))))
      (if (string-match "^cargo \\([0-9]+\\(?:\\.[0-9]+\\)*\\)" text)
          (match-string 1 text)
        text))))

(defun rs-smtpmail--find-cargo (needed)
  "Return a cargo program that has at least the version NEEDED."
  (let* ((programs (mapcar (lambda (program)
                             (cons program (rs-smtpmail--cargo-version program)))
                           (rs-smtpmail--cargo-programs)))
         (fits (seq-find (lambda (program)
                           (and (string-match-p "\\`[0-9.]+\\'" (cdr program))
                                (version<= needed (cdr program))))
                         programs)))
    (or (car fits)
        (user-error "Building the module needs Rust %s or newer.\n%s\nGet it: %s"
                    needed
                    (if programs
                        (mapconcat (lambda (program)
                                     (format "%s says: %s" (car program) (cdr program)))
                                   programs "\n")
                      "There is no cargo in `exec-path' or ~/.cargo/bin.")
                    (rs-smtpmail--how-to-get :rust)))))

(defun rs-smtpmail--check-c-compiler ()
  "Signal an error if there is no C compiler, which crates and linking need."
  (let ((compiler (or (getenv "CC") "cc")))
    (unless (or (eq system-type 'windows-nt)
                (executable-find (car (split-string compiler))))
      (user-error "Building the module needs a C compiler, and there is no %s.\nGet it: %s"
                  compiler (rs-smtpmail--how-to-get :cc)))))

(defun rs-smtpmail--gpgme-p ()
  "Return non-nil if GPGME is there, with what it takes to build with it."
  (let ((program (executable-find (or (getenv "PKG_CONFIG") "pkg-config"))))
    (and program
         (eq 0 (call-process program nil nil nil "--exists" "gpgme" "gpg-error")))))

;;;; Where

(defun rs-smtpmail--source-directory ()
  "Return the directory with the sources of the module."
  (let ((lisp (rs-smtpmail--lisp-directory)))
    (or (seq-find (lambda (directory)
                    (and (file-directory-p (expand-file-name "src" directory))
                         (rs-smtpmail--manifest-value "name" directory)))
                  (list lisp (file-name-directory (directory-file-name lisp))))
        (user-error "The sources of the module are not in %s or above it" lisp))))

(defun rs-smtpmail--manifest-value (key directory)
  "Return the value of KEY in the Cargo.toml of DIRECTORY, if that is ours."
  (let ((file (expand-file-name "Cargo.toml" directory)))
    (when (file-readable-p file)
      (with-temp-buffer
        (insert-file-contents file)
        (and (re-search-forward "^name = \"rs-smtpmail\"" nil t)
             (goto-char (point-min))
             (re-search-forward (format "^%s = \"\\(.*?\\)\"" (regexp-quote key)) nil t)
             (match-string 1))))))

(defun rs-smtpmail--target-directory (source)
  "Return the directory in which cargo is to build what is in SOURCE.
If SOURCE has one, as it has where make is used, it is that.  Else it is a
directory that is deleted when the module is there, for it is large."
  (let ((own (expand-file-name "target/" source)))
    (if (and (file-directory-p own) (file-writable-p own))
        own
      (rs-smtpmail--passing-target-directory))))

(defun rs-smtpmail--passing-target-directory ()
  "Return the directory to build in that is deleted afterwards."
  (expand-file-name (locate-user-emacs-file "rs-smtpmail-build/")))

(defun rs-smtpmail--built-file (target)
  "Return the module that cargo has built in the directory TARGET."
  (let ((directory (expand-file-name "release/" target)))
    (or (locate-file "rs_smtpmail" (list directory) (list module-file-suffix))
        (locate-file "librs_smtpmail" (list directory) (list module-file-suffix))
        (error "Cargo has built no module in %s" directory))))

(defun rs-smtpmail--put-in-place (built version)
  "Put the module BUILT, which has VERSION, beside the Lisp files.
That is by rename: an Emacs that has the old one mapped keeps it."
  (let* ((file (expand-file-name (concat rs-smtpmail--module-name module-file-suffix)
                                 (rs-smtpmail--lisp-directory)))
         (new (concat file ".new")))
    (copy-file built new t)
    (rename-file new file t)
    (with-temp-file (concat (file-name-sans-extension file) ".version")
      (insert version "\n"))))

;;;; The build

(defconst rs-smtpmail--build-troubles
  `(("requires rustc\\|is not supported by the following package"
     . ,(lambda () (concat "rustc is too old; get a newer one: "
                           (rs-smtpmail--how-to-get :rust))))
    ("linker `[^`']+' not found\\|failed to find tool\\|crti\\.o\\|stdlib\\.h"
     . ,(lambda () (concat "there is no C compiler that works; get one: "
                           (rs-smtpmail--how-to-get :cc))))
    ("[Cc]ould not resolve host\\|failed to download\\|failed to fetch"
     . ,(lambda () "the crates could not be fetched from https://crates.io"))
    ("No space left" . ,(lambda () "the disk is full")))
  "What cargo prints when it fails, and functions that say what to do.")

(defun rs-smtpmail--build-say (text)
  "Write TEXT at the end of the build's buffer, which is current."
  (let ((inhibit-read-only t)
        (at-end (eobp)))
    (save-excursion
      (goto-char (point-max))
      (insert text)
      (when (get-buffer-process (current-buffer))
        (set-marker (process-mark (get-buffer-process (current-buffer))) (point))))
    (when at-end (goto-char (point-max)))
    (dolist (window (get-buffer-window-list nil nil t))
      (set-window-point window (point-max))))
  (when noninteractive
    (princ text #'external-debugging-output)))

(defun rs-smtpmail--build-filter (process text)
  "Show TEXT, which PROCESS has printed."
  (compilation-filter process text)
  (when noninteractive
    (princ text #'external-debugging-output)))

(defun rs-smtpmail--build-ended (process _event)
  "Use what PROCESS has built, or say why there is nothing."
  (when (and (memq (process-status process) '(exit signal))
             (buffer-live-p (process-buffer process)))
    (with-current-buffer (process-buffer process)
      (setq mode-line-process nil)
      (let* ((status (process-exit-status process))
             (outcome (condition-case err
                          (if (and (eq (process-status process) 'exit) (zerop status))
                              (rs-smtpmail--use-built (process-get process 'target)
                                                      (process-get process 'version))
                            (error "The module could not be built: %s"
                                   (rs-smtpmail--build-trouble status)))
                        (error (process-put process 'failed t)
                               (error-message-string err)))))
        (process-put process 'outcome outcome)
        (rs-smtpmail--build-say (concat "\n" outcome "\n"))
        (unless noninteractive
          (message "%s" outcome))))))

(defun rs-smtpmail--build-trouble (status)
  "Return the reason for which cargo ended with STATUS, if its output has it."
  (let ((trouble (seq-find (lambda (trouble)
                             (save-excursion
                               (goto-char (point-min))
                               (re-search-forward (car trouble) nil t)))
                           rs-smtpmail--build-troubles)))
    (if trouble
        (funcall (cdr trouble))
      (format "cargo ended with status %s, see %s" status (buffer-name)))))

(defun rs-smtpmail--use-built (target version)
  "Put in place and load the module of VERSION that is in the directory TARGET.
Return what there is to say about it."
  (rs-smtpmail--put-in-place (rs-smtpmail--built-file target) version)
  (when (equal target (rs-smtpmail--passing-target-directory))
    (delete-directory target t))
  (if (featurep 'rs-smtpmail-module)
      "The module is built.  Restart Emacs to use it; the old one is in use until then."
    (rs-smtp-version)                   ; loads it
    (when rs-smtpmail-mode
      (rs-smtpmail--look-into-spool))
    "The module is built and loaded: mail can be sent now."))

(defun rs-smtpmail--start-build (source cargo options version)
  "Have CARGO build what is in SOURCE with OPTIONS, a list; return the process.
VERSION is that of the sources."
  (let* ((target (rs-smtpmail--target-directory source))
         (command `(,cargo "build" "--release" "--locked" "--lib" ,@options
                           "--target-dir" ,target))
         ;; cargo calls rustc, which may only be beside it.  For another
         ;; system's target the result would be elsewhere.
         (process-environment
          `(,(concat "PATH=" (file-name-directory cargo) path-separator (getenv "PATH"))
            "CARGO_BUILD_TARGET"
            ,@process-environment))
         (default-directory source)
         process)
    (rs-smtpmail--build-say
     (concat (mapconcat #'shell-quote-argument command " ")
             "\n"
             (if (member "--no-default-features" options)
                 (format "Without GPGME, which is not there: Emacs decrypts authinfo.gpg then.  \
To have it: %s, and build again.\n"
                         (rs-smtpmail--how-to-get :gpgme))
               "")
             "This takes some minutes.\n\n"))
    (setq mode-line-process ":building"
          process (make-process :name "rs-smtpmail-compile-module"
                                :buffer (current-buffer)
                                :command command
                                :connection-type 'pipe
                                :noquery t
                                :filter #'rs-smtpmail--build-filter
                                :sentinel #'rs-smtpmail--build-ended))
    (process-put process 'target target)
    (process-put process 'version version)
    process))

;;;###autoload
(defun rs-smtpmail-compile-module ()
  "Build the native module from its sources, in a compilation buffer.
This needs Rust and a C compiler; see also `rs-smtpmail-cargo'.  Without
GPGME the module is built such that Emacs decrypts files of passwords.
The module is put beside the Lisp files, and loaded if no other is loaded
yet.  In batch Emacs, wait until it is there, and signal an error if it
can't be built.  Return the buffer."
  (interactive)
  (unless module-file-suffix
    (user-error "This Emacs was built without support for dynamic modules"))
  (let* ((source (rs-smtpmail--source-directory))
         (lisp (rs-smtpmail--lisp-directory))
         (default-directory source)
         (buffer (get-buffer-create "*rs-smtpmail-compile-module*"))
         process)
    (when (process-live-p (get-buffer-process buffer))
      (user-error "The module is being built already, see %s" (buffer-name buffer)))
    (unless (file-writable-p lisp)
      (user-error "%s, where the module belongs, can't be written to by you" lisp))
    (rs-smtpmail--check-c-compiler)
    (let ((cargo (rs-smtpmail--find-cargo
                  (rs-smtpmail--manifest-value "rust-version" source))))
      (with-current-buffer buffer
        (let ((inhibit-read-only t))
          (erase-buffer))
        (compilation-mode "Compile-module")
        (setq-local default-directory source
                    revert-buffer-function (lambda (&rest _)
                                             (rs-smtpmail-compile-module)))
        ;; A window that is made now stays at the end.
        (display-buffer buffer)
        (setq process (rs-smtpmail--start-build
                       source cargo
                       (unless (rs-smtpmail--gpgme-p) '("--no-default-features"))
                       (rs-smtpmail--manifest-value "version" source)))))
    (when noninteractive
      (while (not (process-get process 'outcome))
        (accept-process-output process 1))
      (when (process-get process 'failed)
        (error "%s" (process-get process 'outcome))))
    buffer))

(provide 'rs-smtpmail-compile)

;;; rs-smtpmail-compile.el ends here
