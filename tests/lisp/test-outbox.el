;;; test-outbox.el --- The outbox's buffer  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-outbox)
(require 'rs-smtpmail-outbox-commands)
(require 'rs-smtpmail-outbox-view)

(defun test-outbox-add (subject &optional options recipients)
  "Put a message with SUBJECT for RECIPIENTS into the spool; return its id.
By default it is to be sent tomorrow; OPTIONS may say something else."
  (rs-smtp-send (format "From: me@example.org\nTo: you@example.com\nSubject: %s\n\nHello\n"
                        subject)
                "me@example.org" (or recipients '("you@example.com"))
                (list :host "localhost" :port smtpmail-smtp-service)
                nil
                (or options (list :not-before (+ (float-time) 86300)))))

(defmacro test-with-outbox (&rest body)
  "Run BODY in the outbox, on the screen."
  (declare (indent 0) (debug t))
  `(save-window-excursion
     (let ((rs-smtpmail--resumed t))
       (rs-smtpmail-outbox))
     (unwind-protect
         (progn ,@body)
       (when (get-buffer rs-smtpmail--outbox-buffer)
         (kill-buffer rs-smtpmail--outbox-buffer)))))

(defun test-outbox-column (name &optional id)
  "Return the text in column NAME of the row of ID, or of that at point."
  (save-excursion
    (when id
      (should (rs-smtpmail--outbox-goto id)))
    (substring-no-properties
     (aref (tabulated-list-get-entry) (tabulated-list--column-number name)))))

(defun test-outbox-lines ()
  "Return the lines of the buffer."
  (split-string (buffer-substring-no-properties (point-min) (point-max)) "\n" t))

(defun test-outbox-follow ()
  "Hear the events there are, and bring the outbox up to date."
  (rs-smtpmail--wake)
  (let ((inhibit-message t))
    (rs-smtpmail--handle-events))
  (rs-smtpmail--outbox-follow))

(ert-deftest test-outbox-columns ()
  (test-with-server (test-script '(:stage "rcpt" :match "bad"
                                   :reply "550 5.1.1 <bad@x.org>: No such user")
                                 '(:stage "rcpt" :match "slow" :reply "451 Later"))
    (let ((soon (test-outbox-add "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?="))
          (later (test-outbox-add "Later" '(:not-before 4102444800.0)))
          (bad (test-outbox-add "Bad" '(:dsn nil) '("a@x.org" "bad@x.org")))
          (slow (test-outbox-add "Slow" '(:dsn nil) '("slow@x.org"))))
      (test-wait-for-state 'scheduled 'scheduled 'failed 'pending)
      (sink-wait "the first try" (lambda ()
                                   (= 1 (plist-get (rs-smtp-queue-list slow) :attempts))))
      (test-with-outbox
        (should (equal '("scheduled" "<1m" "you@example.com" "Grüße" "90" "0")
                       (mapcar (lambda (name) (test-outbox-column name soon))
                               '("State" "Age" "To" "Subject" "Size" "Try"))))
        (should (string-match-p "\\`[0-2][0-9]:[0-5][0-9]\\'"
                                (test-outbox-column "Next" soon)))
        (should (equal "2100" (test-outbox-column "Next" later)))
        (should (equal '("failed" "" "550 5.1.1 No such user")
                       (mapcar (lambda (name) (test-outbox-column name bad))
                               '("State" "Next" "Last reply"))))
        (should (equal '("waiting" "1" "451 Later")
                       (mapcar (lambda (name) (test-outbox-column name slow))
                               '("State" "Try" "Last reply"))))
        (should (member (test-outbox-column "Next" slow) '("<1m" "1m")))
        (should (equal " 3 waiting, 1 failed" mode-line-process))
        (rs-smtpmail--outbox-goto bad)
        (should (string-match-p "RCPT TO: .*550 5.1.1 <bad@x.org>"
                                (rs-smtpmail--outbox-eldoc)))))))

(ert-deftest test-outbox-spans-and-sizes ()
  (should (equal '("<1m" "1m" "59m" "1h" "23h" "1d" "40d")
                 (mapcar #'rs-smtpmail--outbox-span
                         '(59.0 60.0 3599.0 3600.0 86399.0 86400.0 3456000.0))))
  (should (equal '("0" "999" "1.0k" "9.9k" "10k" "999k" "1.0M" "25M" "3.2G")
                 (mapcar #'rs-smtpmail--outbox-size
                         '(0 999 1000 9949 9950 999400 999500 25400000 3200000000)))))

(ert-deftest test-outbox-progress ()
  (let ((entry '(:id "x" :state sending)))
    (unwind-protect
        (progn
          (should (equal "sending" (rs-smtpmail--outbox-state-text entry)))
          (puthash "x" '(250 . 1000) rs-smtpmail--progress)
          (should (equal "sending 25%" (rs-smtpmail--outbox-state-text entry)))
          (puthash "x" '(1000 . 1000) rs-smtpmail--progress)
          (should (equal "sending 99%" (rs-smtpmail--outbox-state-text entry))))
      (remhash "x" rs-smtpmail--progress))))

(ert-deftest test-outbox-fits-its-window ()
  (dolist (width '(80 120 200))
    (let ((columns (append (rs-smtpmail--outbox-format width) nil)))
      (should (<= 12 (- width 2
                        (apply #'+ (mapcar (lambda (column) (1+ (cadr column)))
                                           (butlast columns))))
                  (/ width 3))))))

(ert-deftest test-outbox-empty ()
  (test-with-server nil
    (test-with-outbox
      (should (equal '("No mail waits here: all of it has been sent.")
                     (test-outbox-lines)))
      (should-error (rs-smtpmail-outbox-send) :type 'user-error)
      (let ((id (test-outbox-add "First")))
        (test-outbox-follow)
        (should (equal "scheduled" (test-outbox-column "State" id)))
        (should (= 1 (length (test-outbox-lines))))
        (rs-smtp-queue-remove id))
      (test-outbox-follow)
      (should (equal '("No mail waits here: all of it has been sent.")
                     (test-outbox-lines))))))

(ert-deftest test-outbox-follows-by-itself ()
  (test-with-server (test-script '(:stage "mail" :hold "gate"))
    (test-with-outbox
      (let ((id (test-outbox-add "On its way" '(:dsn nil))))
        (rs-smtpmail--changed id)
        (sink-wait "the row" (lambda ()
                               (save-excursion
                                 (and (rs-smtpmail--outbox-goto id)
                                      (equal "sending" (test-outbox-column "State"))))))
        (process-send-string test-server "release gate\n")
        (sink-wait "the row's end" (lambda () (not (rs-smtpmail--outbox-goto id))))))))

(ert-deftest test-outbox-follows-others ()
  (test-with-server nil
    (test-with-outbox
      ;; Nobody tells of it.
      (let ((id (test-outbox-add "From elsewhere")))
        (sink-wait "the row" (lambda () (rs-smtpmail--outbox-goto id)))))))

(ert-deftest test-outbox-changes-only-what-has-changed ()
  (test-with-server nil
    (let ((ids (mapcar (lambda (n) (test-outbox-add (format "Number %d" n)))
                       (number-sequence 1 60)))
          asked)
      (test-with-outbox
        (cl-letf* ((list (symbol-function 'rs-smtp-queue-list))
                   ((symbol-function 'rs-smtp-queue-list)
                    (lambda (&optional id)
                      (push id asked)
                      (funcall list id)))
                   ;; As if nothing were on the screen.
                   ((symbol-function 'rs-smtpmail--outbox-touch-visible) #'ignore))
          (sink-wait "a directory that is not new"
                     (lambda ()
                       (setq asked nil)
                       (rs-smtpmail--outbox-follow)
                       (null asked)))
          (rs-smtp-queue-hold (nth 29 ids) t)
          (test-outbox-follow)
          (should (equal (list (nth 29 ids)) asked)))
        (should (equal "held" (test-outbox-column "State" (nth 29 ids))))
        (should (= 60 (length (test-outbox-lines))))))))

(ert-deftest test-outbox-keeps-place-and-marks ()
  (test-with-server nil
    (let ((ids (mapcar (lambda (n) (test-outbox-add (format "Number %d" n)))
                       (number-sequence 1 30))))
      (test-with-outbox
        (let ((place (lambda ()
                       (list (tabulated-list-get-id) (current-column)))))
          (rs-smtpmail--outbox-goto (nth 10 ids))
          (rs-smtpmail-outbox-mark 2)
          (rs-smtpmail--outbox-goto (nth 20 ids))
          (move-to-column 30)
          ;; Rows above go, its own changes, and one comes.
          (mapc #'rs-smtp-queue-remove (seq-take ids 5))
          (rs-smtp-queue-hold (nth 20 ids) t)
          (rs-smtp-queue-hold (nth 11 ids) t)
          (test-outbox-follow)
          (should (equal (list (nth 20 ids) 30) (funcall place)))
          (should (equal "held" (test-outbox-column "State")))
          (push (test-outbox-add "New") ids)
          (test-outbox-follow)
          (should (equal (list (nth 21 ids) 30) (funcall place)))
          (should (equal (list (nth 11 ids) (nth 12 ids))
                         (rs-smtpmail--outbox-targets)))
          (should (= 2 (length (seq-filter (lambda (line) (string-prefix-p "*" line))
                                           (test-outbox-lines)))))
          ;; Its own row goes: point is on what follows.
          (rs-smtp-queue-remove (nth 21 ids))
          (rs-smtp-queue-remove (nth 11 ids))
          (test-outbox-follow)
          (should (equal (list (nth 22 ids) 30) (funcall place)))
          (should (equal (list (nth 12 ids)) (rs-smtpmail--outbox-targets)))
          ;; Sorting keeps the marks, too.
          (goto-char (point-min))
          (re-search-forward "Number 25")
          (tabulated-list-sort 3)
          (rs-smtpmail--outbox-list)
          (should (= 1 (length (seq-filter (lambda (line) (string-prefix-p "*" line))
                                           (test-outbox-lines))))))))))

(ert-deftest test-outbox-acts-on-marked-ones ()
  (test-with-server nil
    (let ((ids (mapcar (lambda (n) (test-outbox-add (format "Number %d" n)))
                       (number-sequence 1 4)))
          (inhibit-message t))
      (test-with-outbox
        (rs-smtpmail-outbox-toggle-marks)
        (rs-smtpmail--outbox-goto (car ids))
        (rs-smtpmail-outbox-unmark 1)
        (should (equal (cdr ids) (rs-smtpmail--outbox-targets)))
        (rs-smtpmail-outbox-hold)
        (should (equal '(scheduled held held held) (test-states)))
        (should (equal "held" (test-outbox-column "State" (nth 1 ids))))
        (rs-smtpmail-outbox-hold)
        (should (equal '(scheduled scheduled scheduled scheduled) (test-states)))
        (rs-smtpmail-outbox-unmark-all)
        (rs-smtpmail--outbox-goto (nth 1 ids))
        ;; One of them has gone meanwhile.
        (rs-smtpmail-outbox-mark 3)
        (rs-smtp-queue-remove (nth 2 ids))
        (rs-smtpmail-outbox-send)
        (test-received 2)
        (sink-wait "their rows' end"
                   (lambda ()
                     (test-outbox-follow)
                     (equal (list (car ids)) (hash-table-keys
                                              rs-smtpmail--outbox-entries))))
        (cl-letf (((symbol-function 'yes-or-no-p) #'ignore))
          (rs-smtpmail-outbox-delete))
        (should (= 1 (length (rs-smtp-queue-list))))
        (cl-letf (((symbol-function 'yes-or-no-p)
                   (lambda (prompt) (should (string-search "you@example.com" prompt)))))
          (rs-smtpmail-outbox-delete))
        (should-not (rs-smtp-queue-list))
        (should (equal '("No mail waits here: all of it has been sent.")
                       (test-outbox-lines)))))))

(defmacro test-outbox-asked (answer &rest body)
  "Run BODY; return the questions, each answered with ANSWER."
  (declare (indent 1) (debug t))
  `(let (asked)
     (cl-letf (((symbol-function 'yes-or-no-p)
                (lambda (prompt) (push prompt asked) ,answer)))
       ,@body)
     (nreverse asked)))

(ert-deftest test-outbox-sends-again-only-what-the-user-wants ()
  "By the outbox's key and by `rs-smtpmail-retry' alike."
  (dolist (command (list #'rs-smtpmail-retry
                         (lambda (id)
                           (test-with-outbox
                             (rs-smtpmail--outbox-goto id)
                             (rs-smtpmail-outbox-send)))))
    (test-with-server (test-script '(:stage "final" :times 1 :end "close"))
      (let ((id (test-outbox-add "Unsure" '(:dsn nil)))
            (inhibit-message t))
        (test-wait-for-state 'unconfirmed)
        (dolist (hold '(nil t))
          (when hold
            ;; What may have been delivered may have, also while it is held.
            (rs-smtp-queue-hold id t)
            (test-wait-for-state 'held))
          (should (equal '("The server may have it already; send it again? ")
                         (test-outbox-asked nil (funcall command id))))
          (should (eq (if hold 'held 'unconfirmed)
                      (plist-get (rs-smtp-queue-list id) :state))))
        (with-temp-buffer
          (puthash id (current-buffer) rs-smtpmail--edited)
          (unwind-protect
              (should (equal '("The server may have it already; send it again? "
                               "You edit this message; send it as it was? ")
                             (test-outbox-asked (not (cdr asked))
                               (funcall command id))))
            (remhash id rs-smtpmail--edited)))
        (should (equal '(held) (test-states)))
        (should (= 1 (test-received-count)))
        (should (test-outbox-asked t (funcall command id)))
        (test-wait-for-state)
        (should (= 2 (test-received-count)))))
    (test-with-server nil
      (let ((id (test-outbox-add "Sure")))
        (should-not (test-outbox-asked nil (funcall command id)))
        (test-wait-for-state)))))

(ert-deftest test-outbox-what-comes-into-doubt-while-asking-is-not-sent ()
  (test-with-server (test-script '(:stage "final" :times 1 :end "close"))
    (let ((first (test-outbox-add "Unsure" '(:dsn nil))))
      (test-wait-for-state 'unconfirmed)
      (let ((second (test-outbox-add "Sure")))
        (with-temp-buffer
          (should (equal (list first)
                         (cl-letf (((symbol-function 'yes-or-no-p)
                                    (lambda (prompt)
                                      (should (string-search "1 of them" prompt))
                                      (rs-smtp-queue-hold second t)
                                      (puthash second (current-buffer)
                                               rs-smtpmail--edited))))
                           (rs-smtpmail--confirm-sending (list first second)))))
          (remhash second rs-smtpmail--edited))))))

(ert-deftest test-outbox-queued-mail-is-flushed-without-what-is-in-doubt ()
  (test-with-server (test-script '(:stage "final" :times 1 :end "close"))
    (let ((unsure (test-outbox-add "Unsure" '(:dsn nil))))
      (test-wait-for-state 'unconfirmed)
      (let ((edited (test-outbox-add "Edited"))
            (inhibit-message t))
        (rs-smtp-queue-hold edited t)
        (with-temp-buffer
          (puthash edited (current-buffer) rs-smtpmail--edited)
          (unwind-protect
              (progn
                (should-not (test-outbox-asked nil (rs-smtpmail-send-queued-mail)))
                (should (equal '(unconfirmed held) (test-states)))
                ;; Nor does the way through smtpmail's queue send it.
                (rs-smtp-queue-hold unsure t)
                (should (= 0 (rs-smtpmail-export-queue)))
                (rs-smtpmail-send-queued-mail)
                (should (equal '(held held) (test-states))))
            (remhash edited rs-smtpmail--edited)))
        (should (= 1 (rs-smtpmail-export-queue)))
        (should (= 1 (rs-smtpmail-export-queue t)))
        ;; The first try.
        (should (= 1 (test-received-count)))))))

(ert-deftest test-outbox-sorts-and-sends-all ()
  (test-with-server (test-script '(:stage "mail" :times "once" :reply "451 Later"))
    (let ((inhibit-message t)
          (rs-smtpmail-retry-first-pause 3600))
      (test-outbox-add "Deferred" '(:dsn nil))
      (sink-wait "a deferral"
                 (lambda ()
                   (= 1 (plist-get (car (rs-smtp-queue-list)) :attempts))))
      (test-wait-for-state 'pending)
      (test-outbox-add "Tomorrow")
      (let ((smtpmail-queue-mail t))
        (test-send #'rs-smtpmail-send-it (test-header)))
      (test-with-outbox
        (should (eq #'tabulated-list-sort (key-binding "S")))
        (let ((all (key-binding "A")))
          (should (equal '("Send all 2 waiting messages now? ")
                         (test-outbox-asked nil (call-interactively all))))
          (should (= 0 (test-received-count)))
          (should (test-outbox-asked t (call-interactively all)))
          (test-wait-for-state 'scheduled)
          (should (= 2 (test-received-count)))
          (should-not (test-outbox-asked t (call-interactively all)))
          (should (= 2 (test-received-count))))))))

(ert-deftest test-outbox-copies-replies ()
  (test-with-server (test-script '(:stage "rcpt" :reply "550 5.1.1 No such user"))
    (test-outbox-add "Bad" '(:dsn nil))
    (test-wait-for-state 'failed)
    (test-with-outbox
      (let ((inhibit-message t)
            (kill-ring nil))
        (rs-smtpmail-outbox-copy-reply)
        (should (string-match-p "RCPT TO.*550 5.1.1 No such user" (current-kill 0 t)))))))

(ert-deftest test-outbox-shows-a-message ()
  (test-with-server nil
    (let ((id (rs-smtp-send
               (concat "From: me@example.org\nTo: you@example.com\n"
                       "Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\nMIME-Version: 1.0\n"
                       "Content-Type: multipart/mixed; boundary=b\n\n"
                       "--b\nContent-Type: text/plain; charset=utf-8\n"
                       "Content-Transfer-Encoding: quoted-printable\n\nSch=C3=B6n\n"
                       "--b\nContent-Type: image/png; name=a.png\n"
                       "Content-Disposition: attachment; filename=a.png\n"
                       "Content-Transfer-Encoding: base64\n\nAAAA\n--b--\n")
               "me@example.org" '("you@example.com" "secret@example.net")
               (list :host "localhost" :port smtpmail-smtp-service)
               nil (list :not-before (+ (float-time) 86300)))))
      (test-with-outbox
        (rs-smtpmail--outbox-goto id)
        (rs-smtpmail-outbox-view)
        (let ((text (buffer-string)))
          (kill-buffer)
          (dolist (part '("scheduled, queued" "secret@example.net: pending"
                          "Subject: Grüße" "Schön" "[image/png: a.png]"))
            (should (string-search part text))))))))

(ert-deftest test-outbox-in-another-emacs ()
  "No engine runs there, and what is in the spool was put there by this one."
  (test-with-server nil
    (test-outbox-add "Left behind")
    (should (string-search
             "Left behind"
             (test-emacs-output
              '(progn (require 'rs-smtpmail)
                      (rs-smtpmail-outbox)
                      (princ (buffer-string))))))
    (let ((rs-smtpmail-spool-directory (test-file "empty")))
      (should (string-search
               "No mail waits"
               (test-emacs-output
                '(progn (require 'rs-smtpmail)
                        (rs-smtpmail-outbox)
                        (princ (buffer-string)))))))))

(ert-deftest test-outbox-is-linked-from-notices ()
  (test-with-server (test-script '(:stage "rcpt" :reply "550 No such user"))
    (let* (id
           (text (car (test-with-warnings
                        (setq id (test-outbox-add "Bad" '(:dsn nil)))
                        (test-wait-for-state 'failed)
                        (sink-wait "the notice" (lambda () warnings))))))
      (test-outbox-add "Another")
      (with-temp-buffer
        (insert text)
        (goto-char (point-min))
        (save-window-excursion
          (push-button (next-button (point)))
          (should (derived-mode-p 'rs-smtpmail-outbox-mode))
          (should (equal id (tabulated-list-get-id)))
          (kill-buffer))))))

;;; test-outbox.el ends here
